/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The structs shared by nat_lb.bpf.c and its loader (csrc/demo/nat_lb.c): configuration maps,
 * counters and the argument of the sweep.
 *
 * As in struct lbl_ct_key, addresses and ports are in network order; IPv4 is 12 zero bytes and the
 * address.
 */
#ifndef NAT_LB_H
#define NAT_LB_H

#include "lbl_abi.h"
#include "lib/idle.h"

enum {
	NAT_LISTENERS = 64,
	NAT_SLOTS = 256, /* per listener, distributed to its backends by weight */
	NAT_ALL_SLOTS = NAT_LISTENERS * NAT_SLOTS,
	NAT_BACKENDS = 4096, /* ids 1 to 4095 */
};

/* The destination of packets: the key of a listener, the value of a backend. */
struct nat_endpoint {
	__u8 addr[16];
	__be16 port;
	__u8 protocol;
	__u8 pad;
};

struct nat_listener {
	__u32 first_slot;
	__u16 proxy_id;
	__u16 pad;
};

/* The backend of a client's connection; a changed listener does not change it. */
struct nat_steer {
	__u8 addr[16];
	__be16 port;
	__u16 pad;
	__u32 backend_id;
};

_Static_assert(sizeof(struct nat_endpoint) == 20, "nat_endpoint is 20 bytes");

/* One per CPU. */
struct nat_counters {
	__u64 conntrack_full; /* connections dropped because a map was full */
	__u64 no_backend; /* connections dropped because no backend could accept them */
	__u64 ignored; /* packets passed unchanged: truncated, fragments, extension headers */
	__u64 stray; /* TCP packets to a listener that belong to no known connection */
};

/* Input: the timeouts of connections by state. Output: the number of closed connections. */
struct nat_sweep {
	struct lbl_idle idle;
	__u64 now_ns; /* used by the program only */
	__u64 closed;
};

#endif
