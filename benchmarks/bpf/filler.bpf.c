// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* A producer that is told what to produce: run by bpf_prog_test_run(). */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "../../bpf/include/lblatency.bpf.h"
#include "events.h"

/* Have the compiler think that it is used. */
#define keep(variable) asm volatile("" : : "r"(&(variable)) : "memory")

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Straight into the ring, no wakeups: to time a consumer that finds it filled. */
static long fill_one(__u64 i, struct bench_spec *spec)
{
	struct lbl_event *event = bpf_ringbuf_reserve(&lbl_events, sizeof(*event), 0);

	if (!event)
		return 1;
	bench_event(spec, i, event);
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	return 0;
}

SEC("syscall")
int fill(const struct bench_spec *given)
{
	struct bench_spec spec = *given;
	struct lbl_counters *counters;
	__u32 cpu_slot = 0;
	long n = bpf_loop(spec.n, fill_one, &spec, 0);

	counters = bpf_map_lookup_elem(&lbl_counters, &cpu_slot);
	if (counters)
		__sync_fetch_and_add(&counters->produced, n);
	return n;
}

/* As a load balancer does it. */
static long produce_one(__u64 i, struct bench_spec *spec)
{
	struct lbl_event event;

	bench_event(spec, i, &event);
	lbl_conn_closed(&event, LBL_REASON_FIN);
	return 0;
}

/* With the wakeups that the kernel thinks best: what most agents do. */
static long produce_one_waking(__u64 i, struct bench_spec *spec)
{
	struct lbl_event *event = bpf_ringbuf_reserve(&lbl_events, sizeof(*event), 0);

	if (!event)
		return 1;
	bench_event(spec, i, event);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* What the clock, the loop and the event itself take. */
static long produce_one_nowhere(__u64 i, struct bench_spec *spec)
{
	struct lbl_event event;

	bench_event(spec, i, &event);
	keep(event);
	return 0;
}

static __always_inline int produce_timed(struct bench_spec *given, const void *produce_one_how)
{
	struct bench_spec spec = *given;
	__u64 start = bpf_ktime_get_ns();
	long n = bpf_loop(spec.n, (void *)produce_one_how, &spec, 0);

	given->spent_ns = bpf_ktime_get_ns() - start;
	return n;
}

SEC("syscall")
int produce(struct bench_spec *spec)
{
	return produce_timed(spec, produce_one);
}

SEC("syscall")
int produce_waking(struct bench_spec *spec)
{
	return produce_timed(spec, produce_one_waking);
}

SEC("syscall")
int produce_nowhere(struct bench_spec *spec)
{
	return produce_timed(spec, produce_one_nowhere);
}

/* ---- what lbl_conn_closed() takes of a packet's time ---- */

static __always_inline struct lbl_event closing(const struct __sk_buff *skb)
{
	return (struct lbl_event){
		.protocol = 6,
		.flags = LBL_FLAG_IPV4,
		.backend_id = 1,
		.created_ns = skb->len,
		.port = 8080,
		.addr = { [10] = 0xff, 0xff, 10, 0, 0, 1 },
	};
}

SEC("tc")
int packet(struct __sk_buff *skb)
{
	struct lbl_event event = closing(skb);

	keep(event);
	return TC_ACT_OK;
}

/* The balancer has not looked at the clock, so that the event does. */
SEC("tc")
int packet_closed(struct __sk_buff *skb)
{
	struct lbl_event event = closing(skb);

	lbl_conn_closed(&event, LBL_REASON_FIN);
	return TC_ACT_OK;
}

/* The balancer knows what time it is. */
SEC("tc")
int packet_closed_stamped(struct __sk_buff *skb)
{
	struct lbl_event event = closing(skb);

	event.timestamp_ns = event.created_ns + 1;
	lbl_conn_closed(&event, LBL_REASON_FIN);
	return TC_ACT_OK;
}
