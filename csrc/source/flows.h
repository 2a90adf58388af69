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
#include "source/networks.h"

/* cdef: begin */
struct lbl_flows;

enum { LBL_FLOWS_FDS = 10 };

/*
 * Load the programs without attaching them; interfaces are those of the caller's network namespace.
 * The ring has `ring_bytes` (a power of two, at least a page); `max_connections` can be tracked at
 * once. With `only_links`, nothing will be attached that could not be pinned. -EINVAL for invalid
 * sizes, -EPERM without CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.
 */
int lbl_flows_open(uint32_t ring_bytes, uint32_t max_connections, bool only_links,
		   struct lbl_flows **ret);

/*
 * The fds of maps and programs, each with a name to pin it by; they stay ours. lbl_flows_adopt() goes
 * on with what is pinned: it duplicates the fds. -EMEDIUMTYPE if one is not what its name says.
 */
const char *lbl_flows_fd_name(unsigned int which);
int lbl_flows_fd(const struct lbl_flows *flows, unsigned int which);
int lbl_flows_adopt(const int *fds, struct lbl_flows **ret);

/*
 * The fds of the links, two per interface, and the id that no other link ever has; they stay ours.
 * -ENOENT if there is none. While it and all of the above is pinned, packets are looked at without a
 * process.
 */
int lbl_flows_link(const struct lbl_flows *flows, unsigned int which, uint32_t *id);

/*
 * Go on with a pinned link; the fd is duplicated. It must be in the caller's network namespace.
 * -ESTALE if its interface has gone, -EMEDIUMTYPE if it is no link of ours. Then watch the patterns;
 * lbl_flows_follow() detaches from what is not in them.
 */
int lbl_flows_adopt_link(struct lbl_flows *flows, int link_fd);

/* Return how many connections can be tracked at once, or -errno. */
int64_t lbl_flows_max_connections(const struct lbl_flows *flows);

/* Detach from all interfaces and free everything that is not pinned. NULL is legal. */
void lbl_flows_free(struct lbl_flows *flows);

/* Return the fd of lbl_events, lbl_counters or lbl_networks; `flows` owns it. */
int lbl_flows_ring_fd(const struct lbl_flows *flows);
int lbl_flows_counters_fd(const struct lbl_flows *flows);
int lbl_flows_networks_fd(const struct lbl_flows *flows);

/* Return the fd of a program, for tests that run it on packets of their own. */
int lbl_flows_in_fd(const struct lbl_flows *flows);
int lbl_flows_out_fd(const struct lbl_flows *flows);

/*
 * Add the interfaces that a shell pattern names, which lbl_flows_follow() attaches to. Devices whose
 * packets begin neither with Ethernet headers nor with those of IP are left out. Without a wildcard,
 * -ENODEV if there is no such interface, and -EPFNOSUPPORT for such a device.
 */
int lbl_flows_watch(struct lbl_flows *flows, const char *pattern);

/*
 * Detach from interfaces that have gone, attach to those that have come. Returns 0, or the first
 * error; all interfaces are tried. -EOPNOTSUPP if the kernel has no links and only they will do.
 * Aborts the process if the thread cannot return to its own namespace.
 */
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
