/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What nat_lb.bpf.c and its loader (csrc/demo/nat_lb.c) agree on: the configuration maps, the
 * counters and the argument of the sweep.
 *
 * As in lbl_abi.h, addresses and ports are in network order and IPv4 is 12 zero bytes, then the
 * address.
 */
#ifndef NAT_LB_H
#define NAT_LB_H

#include "lbl_abi.h"

enum {
	NAT_LISTENERS = 64,
	NAT_SLOTS = 256, /* of a listener, shared out among its backends by weight */
	NAT_ALL_SLOTS = NAT_LISTENERS * NAT_SLOTS,
	NAT_BACKENDS = 4096, /* ids 1 to 4095 */
};

/* A place that packets are sent to: the key of a listener, the value of a backend. */
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

/* Which backend a client's connection went to, whatever the listener says by now. */
struct nat_steer {
	__u8 addr[16];
	__be16 port;
	__u16 pad;
	__u32 backend_id;
};

_Static_assert(sizeof(struct nat_endpoint) == 20, "nat_endpoint is 20 bytes");

/* One per CPU. */
struct nat_counters {
	__u64 conntrack_full; /* connections refused because the conntrack map was full */
	__u64 no_backend; /* connections refused because no backend could take them */
	__u64 ignored; /* packets passed as they came: truncated, fragments, extension headers */
	__u64 stray; /* TCP packets to a listener that belong to no known connection */
};

/* In: how long a connection may be silent in each condition. Out: how many were closed. */
struct nat_sweep {
	__u64 half_open_ns;
	__u64 closing_ns;
	__u64 idle_ns;
	__u64 udp_idle_ns;
	__u64 now_ns; /* the program's own */
	__u64 closed;
};

#endif
