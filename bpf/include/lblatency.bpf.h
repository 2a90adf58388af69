/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The producer side: include this file in the load balancer's own BPF program (XDP, TC or tracing)
 * after <linux/bpf.h> or vmlinux.h and <bpf/bpf_helpers.h>, and call
 *
 *	struct lbl_event conn = { .protocol = IPPROTO_TCP, .backend_id = b, .created_ns = t };
 *
 *	lbl_set_ipv4(&conn, ip->daddr, tcp->dest);
 *	lbl_conn_opened(&conn);
 *	...
 *	lbl_conn_closed(&conn, LBL_REASON_FIN);
 *
 * This file defines two maps, which lblatency reads: lbl_events and lbl_counters. The loader pins
 * them. If LBL_PIN_BY_NAME is defined before the include, libbpf pins them instead, under their
 * names in /sys/fs/bpf or the loader's pin_root_path. Several objects that are linked into one
 * program (`bpftool gen object`) may include this file: they share the maps, so their LBL_*
 * definitions must be equal.
 *
 * Wakeups are rare, since one costs as much as hundreds of events: the consumer drains the ring on
 * a timer, and is woken only when the fill passes a quarter, a half or three quarters.
 *
 * CPUs that close hundreds of thousands of connections per second should not share a ring. Define
 * LBL_RINGS before the include as the number of possible CPUs: then lbl_events is an array of
 * LBL_RINGS maps, into which the loader puts one ring of LBL_RING_BYTES per CPU. Events of a CPU
 * without a ring are counted as dropped.
 */
#ifndef LBLATENCY_BPF_H
#define LBLATENCY_BPF_H

#include <bpf/bpf_endian.h>

#include "lbl_abi.h"

/* A power of two, at least a page. An event takes LBL_EVENT_STRIDE bytes: 1 MiB holds 16,384. */
#ifndef LBL_RING_BYTES
#define LBL_RING_BYTES (1 << 20)
#endif

/*
 * Fill per wakeup, a power of two. A loader that changes max_entries of lbl_events sets this to a
 * quarter of it.
 */
const volatile __u32 lbl_wakeup_bytes __weak = LBL_RING_BYTES / 4;

#ifdef LBL_PIN_BY_NAME
#define LBL_PINNING LIBBPF_PIN_BY_NAME
#else
#define LBL_PINNING LIBBPF_PIN_NONE
#endif

#ifdef LBL_RINGS
struct lbl_cpu_ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, LBL_RING_BYTES);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, LBL_RINGS);
	__type(key, __u32);
	__uint(pinning, LBL_PINNING);
	__array(values, struct lbl_cpu_ring);
} lbl_events __weak SEC(".maps");

static __always_inline void *lbl_own_ring(void)
{
	__u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&lbl_events, &cpu);
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, LBL_RING_BYTES);
	__uint(pinning, LBL_PINNING);
} lbl_events __weak SEC(".maps");

static __always_inline void *lbl_own_ring(void)
{
	return &lbl_events;
}
#endif

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lbl_counters);
	__uint(pinning, LBL_PINNING);
} lbl_counters __weak SEC(".maps");

/* Return the current time, ns. All times in events are of this clock, including created_ns. */
static __always_inline __u64 lbl_now(void)
{
	return bpf_ktime_get_ns();
}

/* Set the backend. IPv4 address and port are in network order, as in a packet's headers. */
static __always_inline void lbl_set_ipv4(struct lbl_event *event, __be32 addr, __be16 port)
{
	__builtin_memset(event->addr, 0, 10);
	__builtin_memset(event->addr + 10, 0xff, 2);
	__builtin_memcpy(event->addr + 12, &addr, 4);
	event->port = bpf_ntohs(port);
	event->flags |= LBL_FLAG_IPV4;
}

/* Set the backend. `addr` is the IPv6 address, 16 bytes; the port is in network order. */
static __always_inline void lbl_set_ipv6(struct lbl_event *event, const void *addr, __be16 port)
{
	__builtin_memcpy(event->addr, addr, 16);
	event->port = bpf_ntohs(port);
	event->flags &= ~LBL_FLAG_IPV4;
}

/*
 * Convert ns to a short time of an event: microseconds, at least 1, saturating, so neither 0 (not
 * measured) nor LBL_SPAN_NONE (the end never came).
 */
static __always_inline __u32 lbl_span_us(__u64 ns)
{
	__u64 us = ns / 1000;

	if (!us)
		return 1;
	return us < LBL_SPAN_NONE ? us : LBL_SPAN_NONE - 1;
}

static __always_inline int lbl_emit(const struct lbl_event *conn, __u8 type, __u8 reason)
{
	struct lbl_counters *counters;
	struct lbl_event *event;
	void *ring = lbl_own_ring();
	__u32 cpu_slot = 0;
	__u64 fill, past;

	/* Atomic although per CPU: a softirq may run this between a task's load and store. */
	counters = bpf_map_lookup_elem(&lbl_counters, &cpu_slot);
	if (counters)
		__sync_fetch_and_add(&counters->produced, 1);

	event = ring ? bpf_ringbuf_reserve(ring, sizeof(*event), 0) : NULL;
	if (!event) {
		if (counters)
			__sync_fetch_and_add(&counters->dropped, 1);
		return -28; /* -ENOSPC */
	}
	*event = *conn;
	event->type = type;
	event->reason = reason;
	if (!event->timestamp_ns)
		event->timestamp_ns = lbl_now();

	fill = bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA);
	past = fill & (lbl_wakeup_bytes - 1);
	if (fill >= lbl_wakeup_bytes && past < sizeof(*event) + BPF_RINGBUF_HDR_SZ)
		bpf_ringbuf_submit(event, BPF_RB_FORCE_WAKEUP);
	else
		bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	return 0;
}

/*
 * Report that a connection to a backend was created: at its first SYN or packet, not at a
 * retransmit. The caller sets the backend in `conn`. This sets type and reason, and timestamp_ns if
 * it is 0. Returns 0, or -ENOSPC if the ring is full, which counts as dropped.
 */
static __always_inline int lbl_conn_opened(const struct lbl_event *conn)
{
	return lbl_emit(conn, LBL_OPENED, LBL_REASON_UNKNOWN);
}

/*
 * Report that a connection has ended, and why; otherwise like lbl_conn_opened(). The caller should
 * set created_ns: without it, this event alone has no lifetime.
 */
static __always_inline int lbl_conn_closed(const struct lbl_event *conn, enum lbl_reason reason)
{
	return lbl_emit(conn, LBL_CLOSED, reason);
}

#endif
