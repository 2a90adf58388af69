// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* A balancer that reports what the test tells it to report: for tests/oracle. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "lblatency.bpf.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

enum { BATCH = 256, RECORD_MAX = 120 };

struct record {
	__u32 len; /* 0: reserve, then discard */
	__s32 rc; /* what became of it: 0, or -ENOSPC */
	__u8 data[RECORD_MAX];
};

struct batch {
	__u32 n;
	struct record each[BATCH];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct batch);
} batches SEC(".maps");

/* Another producer of the same ring, with a layout of its own. */
static __always_inline int put_other(void *ring, const void *data, __u32 len)
{
	struct lbl_counters *counters;
	__u32 only = 0;
	long rc = -28;

	counters = bpf_map_lookup_elem(&lbl_counters, &only);
	if (!counters)
		return -28;
	__sync_fetch_and_add(&counters->produced, 1);
	if (ring)
		rc = bpf_ringbuf_output(ring, (void *)data, len, BPF_RB_NO_WAKEUP);
	if (rc) {
		__sync_fetch_and_add(&counters->dropped, 1);
		return -28;
	}
	return 0;
}

static __always_inline int discard(void *ring)
{
	void *space = ring ? bpf_ringbuf_reserve(ring, 24, 0) : NULL;

	if (space)
		bpf_ringbuf_discard(space, BPF_RB_NO_WAKEUP);
	return 0;
}

static long put(__u32 i, void *unused)
{
	const struct lbl_event *event;
	struct record *record;
	struct batch *batch;
	__u32 only = 0, len;

	(void)unused;
	batch = bpf_map_lookup_elem(&batches, &only);
	if (!batch || i >= BATCH)
		return 1;
	record = &batch->each[i];
	event = (const struct lbl_event *)record->data;
	len = record->len;
	if (!len)
		record->rc = discard(lbl_own_ring());
	else if (len == LBL_EVENT_BYTES)
		record->rc = lbl_emit(event, event->type, event->reason);
	else if (len <= RECORD_MAX)
		record->rc = put_other(lbl_own_ring(), record->data, len);
	return 0;
}

SEC("syscall")
int emit(void *unused)
{
	struct batch *batch;
	__u32 only = 0;

	(void)unused;
	batch = bpf_map_lookup_elem(&batches, &only);
	if (batch)
		bpf_loop(batch->n, put, NULL, 0);
	return 0;
}
