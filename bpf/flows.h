/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The structs shared by flows.bpf.c and its loader (csrc/source/flows.c). */
#ifndef LBL_FLOWS_ABI_H
#define LBL_FLOWS_ABI_H

#include "lbl_abi.h"
#include "lib/idle.h"

/* cdef: begin */
/* One per CPU. */
struct lbl_flows_counters {
	__u64 full; /* connections that are not tracked, since the map had no room */
	__u64 ignored; /* packets: later fragments, unknown extension headers, malformed */
	__u64 stray; /* packets with FIN or RST of no tracked connection with a backend */
	__u64 refused; /* failed connects by cause: the backend's RST */
	__u64 timed_out; /* silence */
	__u64 unreachable; /* ICMP */
	__u64 given_up; /* the client's next attempt from the same port */
};
/* cdef: end */

enum { FLOWS_CONN_BYTES = 64 }; /* what the programs keep of a connection */

/* Input: after how long silent connections end, and the size of the ring. */
struct flows_sweep {
	struct lbl_idle idle;
	__u64 ring_bytes;
	__u64 now_ns; /* used by the program only */
	__u64 is_partial; /* output: whether it has stopped, since the ring became half full */
};

#endif
