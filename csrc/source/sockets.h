/* SPDX-License-Identifier: MIT */
/*
 * The connections that proxies of this host open: loads bpf/sockets.bpf.c, applies rules, attaches.
 * Not thread-safe. Every function returns 0 or a count, or -errno; after an error, lbl_log_text()
 * returns the messages of libbpf and the kernel.
 */
#ifndef LBL_SOURCE_SOCKETS_H
#define LBL_SOURCE_SOCKETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../bpf/sockets.h"
#include "source/networks.h"

/* cdef: begin */
struct lbl_sockets;

enum lbl_sockets_program {
	LBL_SOCKETS_STATE,
	LBL_SOCKETS_STATE_AGAIN, /* sees what the first is skipped for */
	LBL_SOCKETS_FIRST_BYTE,
	LBL_SOCKETS_PROGRAMS,
};

enum { LBL_SOCKETS_FDS = 10 + 2 * LBL_SOCKETS_PROGRAMS };

struct lbl_sockets_comm_rule {
	struct lbl_sockets_comm key;
	struct lbl_sockets_proxy value;
};

struct lbl_sockets_cgroup_rule {
	uint64_t key; /* the cgroup's id: the inode of its directory */
	struct lbl_sockets_proxy value;
};

/*
 * Which connections to take. One is taken if its process is called as a comm rule says or is in the
 * cgroup of a rule, and its backend is in the network of a rule and on one of its ports. Where there
 * is no rule for processes, or none for backends, all of them are.
 */
struct lbl_sockets_rules {
	const struct lbl_sockets_comm_rule *comms;
	size_t n_comms;
	const struct lbl_sockets_cgroup_rule *cgroups;
	size_t n_cgroups;
	const struct lbl_network_rule *networks;
	size_t n_networks;
};

struct lbl_sockets_state {
	struct lbl_sockets_counters counters; /* summed over all CPUs */
	uint64_t skipped[LBL_SOCKETS_PROGRAMS]; /* how often each interrupted itself */
};

/*
 * Load the programs, apply the rules, attach, and report the connections that are open already. The
 * ring has `ring_bytes`: a power of two, at least a page. With `by_read`, the first byte is when the
 * process reads it even if the kernel can tell when it came: what kernels before 6.3 do. -EINVAL for
 * another ring size, -E2BIG if there are too many rules of a kind, -EPERM without CAP_BPF and
 * CAP_PERFMON.
 */
int lbl_sockets_open(uint32_t ring_bytes, const struct lbl_sockets_rules *rules, bool by_read,
		     struct lbl_sockets **ret);

/*
 * The fds of maps, programs and links, each with a name to pin it by; they stay ours. While all are
 * pinned, connections are followed without a process, and lbl_sockets_adopt() goes on with them: it
 * duplicates the fds and applies the rules. -EMEDIUMTYPE if one is not what its name says.
 */
const char *lbl_sockets_fd_name(unsigned int which);
int lbl_sockets_fd(const struct lbl_sockets *sockets, unsigned int which);
int lbl_sockets_adopt(const int *fds, const struct lbl_sockets_rules *rules,
		      struct lbl_sockets **ret);

/* Detach and free everything that is not pinned. Connections that are open are forgotten. NULL is legal. */
void lbl_sockets_free(struct lbl_sockets *sockets);

/* Replace all rules. They apply to connections that are opened later. -E2BIG as above. */
int lbl_sockets_set_rules(struct lbl_sockets *sockets, const struct lbl_sockets_rules *rules);

/* Return the fd of lbl_events or lbl_counters; it stays ours. */
int lbl_sockets_ring_fd(const struct lbl_sockets *sockets);
int lbl_sockets_counters_fd(const struct lbl_sockets *sockets);

/* Return the fd of a program; it stays ours. */
int lbl_sockets_program_fd(const struct lbl_sockets *sockets, enum lbl_sockets_program which);

/* Detach one program, for tests of the others. */
void lbl_sockets_detach(struct lbl_sockets *sockets, enum lbl_sockets_program which);

int lbl_sockets_read(const struct lbl_sockets *sockets, struct lbl_sockets_state *ret);

/*
 * Report the ends for which no program was run: of connections that began, no end was seen, and no
 * socket has them, in two looks. They are closed events with neither a creation time nor a reason;
 * those of backends without an id are only counted. Returns how many there were.
 *
 * Call it about once per second. It looks less often if that would cost more than 1/200 of a CPU, and
 * not while there are more than a million connections.
 */
int64_t lbl_sockets_mend(struct lbl_sockets *sockets);
/* cdef: end */

#endif
