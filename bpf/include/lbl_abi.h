/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The structs shared between kernel and user space (events, counters, conntrack entries) and
 * between C and Python (cffi reads the part between the cdef marks). This is their only definition.
 *
 * All times are CLOCK_MONOTONIC, as returned by bpf_ktime_get_ns(). Multi-byte fields of an event
 * are in host byte order; addresses are in network order, IPv4 as ::ffff:a.b.c.d.
 */
#ifndef LBL_ABI_H
#define LBL_ABI_H

#ifndef __VMLINUX_H__
#include <linux/types.h>
#endif

/* cdef: begin */
enum {
	LBL_EVENT_BYTES = 56,
	LBL_EVENT_STRIDE = 64, /* of an event in a ring with its 8-byte header: one cache line */
};

enum lbl_event_type {
	LBL_OPENED = 1,
	LBL_CLOSED = 2,
	LBL_PERIODIC = 3,
};

enum lbl_reason {
	LBL_REASON_UNKNOWN = 0,
	LBL_REASON_FIN = 1,
	LBL_REASON_RST = 2,
	LBL_REASON_TIMEOUT = 3,
	LBL_REASON_EVICTED = 4,
	LBL_REASON_REUSED = 5, /* a new connection has the same tuple and another ISN */
	LBL_REASON_CONNECT_FAILED = 6, /* never established; no lifetime is recorded */
	LBL_REASONS = 7,
};

enum lbl_event_flag {
	LBL_FLAG_IPV4 = 1, /* addr is ::ffff:a.b.c.d; the event is malformed otherwise */
	LBL_FLAG_PROBE = 2, /* a health check: no payload, closed by the client's RST */
};

/* The value of a short time whose end never came. */
#define LBL_SPAN_NONE 0xffffffff

/*
 * These 56 bytes never change. An extended event has 64, 128, ... more bytes, and an older reader
 * uses only the first 56: events of this format have no other length.
 *
 * Every event has type, port and addr. Any other field may be 0, which means unknown. The short
 * times are in microseconds: 0 means not measured, LBL_SPAN_NONE means that the end never came; any
 * other time is at least 1 and saturates at 0xfffffffe. lbl_span_us() computes one.
 */
struct lbl_event {
	__u8 type; /* enum lbl_event_type */
	__u8 reason; /* enum lbl_reason; of a closed event */
	__u8 protocol; /* 6 TCP, 17 UDP */
	__u8 flags; /* enum lbl_event_flag */
	__u32 backend_id; /* dense index chosen by the producer; a hint, verified by the reader */
	__u64 timestamp_ns; /* time of the event; lblatency.bpf.h replaces 0 by the current time */
	__u64 created_ns; /* time of the connection's first SYN or packet */
	__u32 connect_us; /* creation to the backend's SYN-ACK */
	__u32 first_byte_us; /* creation to the backend's first payload */
	__u32 closing_us; /* first FIN or RST to the end */
	__u16 port; /* of the backend, host byte order */
	__u16 proxy_id; /* id of the listener; 0 = the stream's own proxy name */
	__u8 addr[16]; /* of the backend; not in ff00::/16, which is reserved */
};

/* One per CPU; the reader sums them: produced = received + taken + dropped + in ring. */
struct lbl_counters {
	__u64 produced; /* events that programs tried to send, including the dropped ones */
	__u64 dropped; /* events that did not fit into the ring */
};
/* cdef: end */

/*
 * Connection tracking entries. The key is the tuple after NAT: src is the client, dst the backend.
 * Addresses and ports are in network order; in lbl_ct_key, IPv4 is 12 zero bytes and the address.
 * Only the front of a value is common; the rest is specific to the balancer.
 */
struct lbl_ct_key4 {
	__be32 src, dst;
	__be16 sport, dport;
	__u8 protocol;
	__u8 pad[3];
};

struct lbl_ct_value4 {
	__be32 orig_addr;
	__be16 orig_port, pad0;
	__be32 nat_addr;
	__be16 nat_port, pad1;
	__u64 created_ns, last_seen_ns;
	__u64 packets_fwd, packets_rev, bytes_fwd, bytes_rev;
};

struct lbl_ct_key {
	__u8 src[16], dst[16];
	__be16 sport, dport;
	__u8 protocol;
	__u8 pad[3];
};

struct lbl_ct_value {
	__u8 orig_addr[16];
	__be16 orig_port, pad0;
	__u8 nat_addr[16];
	__be16 nat_port, pad1;
	__u64 created_ns, last_seen_ns;
	__u64 packets_fwd, packets_rev, bytes_fwd, bytes_rev;
};

#ifdef __cplusplus
#define LBL_ASSERT static_assert
#else
#define LBL_ASSERT _Static_assert
#endif

#define LBL_AT(type, field, offset)                                                                \
	LBL_ASSERT(__builtin_offsetof(struct type, field) == (offset), #type "." #field)

LBL_ASSERT(sizeof(struct lbl_event) == LBL_EVENT_BYTES, "lbl_event is 56 bytes");
LBL_ASSERT(LBL_EVENT_STRIDE == LBL_EVENT_BYTES + 8, "an event and its header fill the stride");
LBL_AT(lbl_event, type, 0);
LBL_AT(lbl_event, reason, 1);
LBL_AT(lbl_event, protocol, 2);
LBL_AT(lbl_event, flags, 3);
LBL_AT(lbl_event, backend_id, 4);
LBL_AT(lbl_event, timestamp_ns, 8);
LBL_AT(lbl_event, created_ns, 16);
LBL_AT(lbl_event, connect_us, 24);
LBL_AT(lbl_event, first_byte_us, 28);
LBL_AT(lbl_event, closing_us, 32);
LBL_AT(lbl_event, port, 36);
LBL_AT(lbl_event, proxy_id, 38);
LBL_AT(lbl_event, addr, 40);

LBL_ASSERT(sizeof(struct lbl_ct_key4) == 16, "lbl_ct_key4 is 16 bytes");
LBL_AT(lbl_ct_key4, protocol, 12);
LBL_ASSERT(sizeof(struct lbl_ct_key) == 40, "lbl_ct_key is 40 bytes");
LBL_AT(lbl_ct_key, protocol, 36);
LBL_AT(lbl_ct_value4, nat_addr, 8);
LBL_AT(lbl_ct_value4, created_ns, 16);
LBL_AT(lbl_ct_value4, last_seen_ns, 24);
LBL_AT(lbl_ct_value4, bytes_rev, 56);
LBL_AT(lbl_ct_value, nat_addr, 20);
LBL_AT(lbl_ct_value, created_ns, 40);
LBL_AT(lbl_ct_value, last_seen_ns, 48);
LBL_AT(lbl_ct_value, bytes_rev, 80);

#endif
