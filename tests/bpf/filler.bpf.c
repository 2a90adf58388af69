// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Fills two rings alike when it is run by hand: for test_rings.py. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define LBL_RING_BYTES (1 << 18)
#include "lblatency.bpf.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, LBL_RING_BYTES);
} copy SEC(".maps");

struct args {
	__u32 first, n;
	__u32 odd; /* after this many events, put something else; 0 = never */
};

struct other {
	__u8 bytes[64];
};

/* What a balancer might leave in a ring besides: another layout, and a reservation given up. */
static __always_inline void put_odd(void *ring)
{
	struct other other = { .bytes = { [0] = LBL_CLOSED, [11] = 9 } };
	void *space = bpf_ringbuf_reserve(ring, 24, 0);

	if (space)
		bpf_ringbuf_discard(space, BPF_RB_NO_WAKEUP);
	bpf_ringbuf_output(ring, &other, sizeof(other), BPF_RB_NO_WAKEUP);
}

static long put(__u32 i, void *context)
{
	const struct args *args = context;
	__u32 number = args->first + i;
	struct lbl_event event = {
		.protocol = 6,
		.flags = LBL_FLAG_IPV4,
		.backend_id = number % 7,
		.timestamp_ns = 1000000000000ULL + number * 7919ULL,
		.created_ns = 1000000000000ULL - (number % 1000) * 1000003ULL,
		.first_byte_us = LBL_SPAN_NONE,
		.port = 80,
		.addr = { [10] = 0xff, 0xff, 10, 0, 0, number % 7 },
	};

	if (args->odd && number % args->odd == 0) {
		put_odd(&lbl_events);
		put_odd(&copy);
	}
	lbl_conn_closed(&event, number % 6);
	event.type = LBL_CLOSED;
	event.reason = number % 6;
	bpf_ringbuf_output(&copy, &event, sizeof(event), BPF_RB_NO_WAKEUP);
	return 0;
}

SEC("syscall")
int fill(struct args *given)
{
	struct args args = *given;

	bpf_loop(args.n, put, &args, 0);
	return 0;
}
