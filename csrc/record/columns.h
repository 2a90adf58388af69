/* SPDX-License-Identifier: MIT */
/* The state of a burst: one column per property of its events. */
#ifndef LBL_RECORD_COLUMNS_H
#define LBL_RECORD_COLUMNS_H

#include "record/metric.h"
#include "record/table.h"
#include "stream/ring.h"
#include "stream/sink.h"

/*
 * A latency besides the lifetime. An event without it has the duration 0 and increments
 * `unmeasured`, a counter that a burst cannot fill.
 */
struct lbl_burst_more {
	uint64_t ns[LBL_BURST_MAX] __attribute__((aligned(64)));
	uint64_t bits[LBL_BURST_MAX]; /* lbl_bits() */
	uint8_t *counter[LBL_BURST_MAX];
	uint64_t measured; /* set of events that contain the latency */
	uint8_t unmeasured;
};

/*
 * A copy of every checked value: the ring is not read again, since other processes can write to it.
 * Decoding fills the first arrays. A set has one bit per event. `closed`: closed events with a
 * valid lifetime, health probes excluded; `older`: those of them that began before the horizon;
 * `opened`: opened events of connections that began at the horizon or later. All others have the
 * lifetime 0, and events that are neither closed nor opened take the slow path, lbl_shard_record().
 * `last_ns` is the latest end of the closed ones, told only if all are and there is no horizon.
 */
struct lbl_burst {
	const char *first;
	uint32_t n;
	uint64_t horizon_ns; /* 0 while it is not set */
	uint64_t closed, older, opened, last_ns;
	uint64_t ns[LBL_BURST_MAX] __attribute__((aligned(64)));
	uint64_t bits[LBL_BURST_MAX]; /* lbl_bits() */
	struct lbl_burst_head {
		uint8_t type, reason, protocol, flags;
		uint32_t backend_id;
	} head[LBL_BURST_MAX]; /* the first 8 bytes of struct lbl_event */
	struct lbl_hot *hot[LBL_BURST_MAX];
	uint8_t *counter[LBL_BURST_MAX];
	struct lbl_burst_more more[LBL_METRICS - 1]; /* in the order of the shard's `more` */
};

static inline const struct lbl_event *lbl_burst_event(const struct lbl_burst *burst, uint32_t i)
{
	return (const void *)(burst->first + i * (size_t)LBL_EVENT_STRIDE);
}

/* Return the set of the first `n` events. */
static inline uint64_t lbl_burst_all(uint32_t n)
{
	return n < 64 ? (1ULL << n) - 1 : UINT64_MAX;
}

#endif
