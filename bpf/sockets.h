/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The structs shared by sockets.bpf.c and its loader (csrc/source/sockets.c): the rules that say
 * which processes' connections are taken, and counters. Rules for backends are in lib/networks.h.
 */
#ifndef LBL_SOCKETS_ABI_H
#define LBL_SOCKETS_ABI_H

#include "lbl_abi.h"

/* cdef: begin */
enum {
	LBL_SOCKETS_COMMS = 256,
	LBL_SOCKETS_CGROUPS = 256,
	LBL_SOCKETS_BACKENDS = 16384, /* that get an id; events of others have none */
	LBL_SOCKETS_LEVELS = 16, /* how deep a process's cgroup may be below the one of a rule */
	LBL_SOCKETS_COMM_BYTES = 16,
};

/* Which kinds of rules there are. A connection is taken if its process and its backend are. */
struct lbl_sockets_filter {
	__u32 has_comms;
	__u32 has_cgroups;
	__u32 has_networks;
};

/* The key of a rule for processes by name: what `ps` calls the process, whatever its threads. */
struct lbl_sockets_comm {
	char name[LBL_SOCKETS_COMM_BYTES]; /* ends in zeros */
};

/* The value of a rule for processes: the id of the proxy, 0 for the stream's own name. */
struct lbl_sockets_proxy {
	__u32 id;
};

/* One per CPU. */
struct lbl_sockets_counters {
	__u64 refused; /* failed connects by cause */
	__u64 timed_out;
	__u64 unreachable;
	__u64 given_up; /* by the proxy, before the kernel did */
	__u64 no_port; /* no local port was free */
	__u64 other;
	__u64 births_full; /* connections not taken: there was no memory to remember them in */
	__u64 overwritten; /* connections whose end was not seen: their sockets connected again */
	__u64 older; /* connections found open at the start */
	__u64 caught; /* ends and handshakes that only the second program saw */
	__u64 unseen; /* connections that ended without a program being run */
};
/* cdef: end */

/* What backend ids are kept for: the last 20 bytes of an event. */
struct lbl_sockets_backend {
	__u16 port;
	__u16 proxy_id;
	__u8 addr[16];
};

/* What became of a backend's connections, by its id; row 0 is that of all backends without an id. */
struct lbl_sockets_row {
	__u64 begun; /* what was stored at a socket, counted after that */
	__u64 ended; /* what of it has ended or was overwritten, counted before that */
	__u64 missing; /* the user space's: see lbl_sockets_mend() */
	__u64 missed;
	struct lbl_sockets_backend backend;
};

_Static_assert(sizeof(struct lbl_sockets_backend) ==
		       sizeof(struct lbl_event) - __builtin_offsetof(struct lbl_event, port),
	       "lbl_sockets_backend is the tail of lbl_event");

#endif
