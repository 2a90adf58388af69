/* SPDX-License-Identifier: MIT */
/*
 * The source of connections that pass this host: loads bpf/flows.bpf.c and attaches it to
 * interfaces. Not thread-safe. Every function returns 0 or a count, or -errno; after an error,
 * lbl_log_text() returns the messages of libbpf and the kernel.
 */
#ifndef LBL_SOURCE_FLOWS_H
#define LBL_SOURCE_FLOWS_H

#include <stdbool.h>
#include <stdint.h>

#include "../../bpf/flows.h"

/* cdef: begin */
struct lbl_flows;

/*
 * Load the programs without attaching them; interfaces are those of the caller's network namespace.
 * The ring has `ring_bytes` (a power of two, at least a page); `max_connections` can be tracked at
 * once. -EINVAL for invalid sizes, -EPERM without CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.
 */
int lbl_flows_open(uint32_t ring_bytes, uint32_t max_connections, struct lbl_flows **ret);

/* Detach from all interfaces and free everything. NULL is legal. */
void lbl_flows_free(struct lbl_flows *flows);

/* Return the fd of lbl_events, lbl_counters or lbl_networks; `flows` owns it. */
int lbl_flows_ring_fd(const struct lbl_flows *flows);
int lbl_flows_counters_fd(const struct lbl_flows *flows);
int lbl_flows_networks_fd(const struct lbl_flows *flows);

/* Return the fd of a program, for tests that run it on packets of their own. */
int lbl_flows_in_fd(const struct lbl_flows *flows);
int lbl_flows_out_fd(const struct lbl_flows *flows);

/*
 * Attach to the interfaces that a shell pattern names, and from then on, at each lbl_flows_follow(),
 * to those that have come since. Devices whose packets begin neither with Ethernet headers nor with
 * those of IP are left out. Without a wildcard, -ENODEV if there is no such interface, and
 * -EPFNOSUPPORT for such a device. Aborts the process if the thread cannot return to its own
 * namespace.
 */
int lbl_flows_watch(struct lbl_flows *flows, const char *pattern);

/* Returns 0, or the first error; all interfaces are tried. */
int lbl_flows_follow(struct lbl_flows *flows);

/* Return the number of interfaces that the programs are attached to. */
uint32_t lbl_flows_followed(const struct lbl_flows *flows);

/*
 * End connections that have been silent for too long. Returns 0, or 1 if some are left because the
 * ring is half full: drain it and call again.
 */
int lbl_flows_sweep(struct lbl_flows *flows, const struct lbl_idle *idle);

/* Read the counters, summed over all CPUs. */
int lbl_flows_counters(const struct lbl_flows *flows, struct lbl_flows_counters *ret);

/* Return whether all programs are links, which end even with a killed process. */
bool lbl_flows_is_linked(const struct lbl_flows *flows);
/* cdef: end */

#endif
