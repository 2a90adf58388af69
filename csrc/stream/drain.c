// SPDX-License-Identifier: MIT
#include "stream/drain.h"

/* Limit of records per batch: the sinks' locks and the ring's space are released after each. */
enum { BATCH_MAX = 1024 };

struct drain {
	struct lbl_ring *ring;
	struct lbl_sink *const *sinks;
	uint32_t n_sinks;
	struct lbl_drain_counts *counts;
};

static void deliver_burst(const struct drain *drain, const void *first, uint32_t n)
{
	uint32_t i;

	for (i = 0; i < drain->n_sinks; i++)
		drain->sinks[i]->ops->burst(drain->sinks[i], first, n);
	lbl_owner_add(&drain->counts->received, n);
}

static void deliver(const struct drain *drain, const void *data, uint32_t len)
{
	uint32_t i;

	for (i = 0; i < drain->n_sinks; i++)
		drain->sinks[i]->ops->record(drain->sinks[i], data, len);
	lbl_owner_add(&drain->counts->received, 1);
}

/*
 * Return the number of consecutive submitted 56-byte events. Prefetches the next burst's records,
 * but no cache line that a producer may be writing.
 */
static uint32_t burst_length(const struct lbl_ring *ring, uint64_t at, uint64_t end)
{
	const uint8_t *first = ring->data + (at & ring->mask), *last, *header;
	uint64_t most = (end - at) / LBL_EVENT_STRIDE;
	size_t ahead = most < 2 * LBL_BURST_MAX ? 0 : LBL_BURST_MAX * LBL_EVENT_STRIDE;

	last = first + (most < LBL_BURST_MAX ? most : LBL_BURST_MAX) * LBL_EVENT_STRIDE;
	for (header = first; header < last; header += LBL_EVENT_STRIDE) {
		__builtin_prefetch(header + ahead);
		if (lbl_record_len(header) != LBL_EVENT_BYTES)
			break;
	}
	return (uint32_t)(header - first) / LBL_EVENT_STRIDE;
}

/* Pass on one record of any length. Returns the next position, or `at` if the record is busy. */
static uint64_t drain_one(const struct drain *drain, uint64_t at, uint64_t end)
{
	uint32_t len = lbl_ring_len(drain->ring, at);
	uint64_t next = at + lbl_ring_stride(len & LBL_RING_LEN);

	if (len & LBL_RING_BUSY)
		return at;
	if (next > end) {
		lbl_owner_add(&drain->counts->corrupt, 1);
		return end;
	}
	if (!(len & LBL_RING_DISCARDED))
		deliver(drain, lbl_ring_data(drain->ring, at), len);
	return next;
}

/* Returns the new consumer position. */
static uint64_t drain_records(const struct drain *drain, uint64_t at, uint64_t end)
{
	uint32_t left = BATCH_MAX;

	while (left && at < end) {
		uint32_t n = burst_length(drain->ring, at, end);
		uint64_t next = at + n * (uint64_t)LBL_EVENT_STRIDE;

		if (n) {
			deliver_burst(drain, lbl_ring_data(drain->ring, at), n);
		} else {
			next = drain_one(drain, at, end);
			if (next == at)
				break;
			n = 1;
		}
		left -= n < left ? n : left;
		at = next;
	}
	return at;
}

static bool is_ahead(const struct lbl_ring *ring, uint64_t at, uint64_t end)
{
	return lbl_ring_sane(ring, at, end) && (int64_t)(at - ring->position) > 0 &&
	       lbl_ring_is_boundary(ring, at);
}

static void skip(struct lbl_ring *ring, uint64_t end, struct lbl_drain_counts *counts)
{
	lbl_owner_add(&counts->corrupt, 1);
	ring->position = end;
}

void lbl_drain_settle(struct lbl_ring *ring, struct lbl_drain_counts *counts)
{
	uint64_t at = __atomic_load_n(ring->consumer_pos, __ATOMIC_ACQUIRE);
	uint64_t end = lbl_ring_end(ring);
	bool is_sane = lbl_ring_sane(ring, ring->position, end);

	if (likely(at == ring->position && is_sane))
		return;
	if (at != ring->position)
		lbl_owner_add(&counts->moved, 1);
	if (is_ahead(ring, at, end)) {
		lbl_owner_add(&counts->taken, lbl_ring_count(ring, ring->position, at));
		ring->position = at;
		return;
	}
	if (!is_sane)
		skip(ring, end, counts);
	__atomic_store_n(ring->consumer_pos, ring->position, __ATOMIC_RELEASE);
}

void lbl_drain_begin(struct lbl_ring *ring, struct lbl_drain_counts *counts)
{
	ring->position = __atomic_load_n(ring->consumer_pos, __ATOMIC_ACQUIRE);
	lbl_drain_settle(ring, counts);
	if (lbl_ring_is_at_record(ring))
		return;
	skip(ring, lbl_ring_end(ring), counts);
	__atomic_store_n(ring->consumer_pos, ring->position, __ATOMIC_RELEASE);
}

uint64_t lbl_drain_end(struct lbl_ring *ring, struct lbl_drain_counts *counts)
{
	uint64_t end;

	lbl_drain_settle(ring, counts);
	end = lbl_ring_end(ring);
	if (end - ring->position > counts->fill_max)
		WRITE_ONCE(&counts->fill_max, end - ring->position);
	return end;
}

/* Consume up to `at`. If somebody else has moved the position meanwhile, settling finds it. */
static void advance(struct lbl_ring *ring, uint64_t at)
{
	uint64_t before = ring->position;

	ring->position = at;
	__atomic_compare_exchange_n(ring->consumer_pos, &before, at, false, __ATOMIC_RELEASE,
				    __ATOMIC_RELAXED);
}

bool lbl_drain_batch(struct lbl_ring *ring, uint64_t end, struct lbl_sink *const *sinks,
		     uint32_t n_sinks, struct lbl_drain_counts *counts)
{
	const struct drain drain = { ring, sinks, n_sinks, counts };
	uint64_t before, at;
	uint32_t i;

	lbl_drain_settle(ring, counts);
	before = ring->position;
	for (i = 0; i < n_sinks; i++)
		pthread_mutex_lock(&sinks[i]->lock);
	at = drain_records(&drain, before, end);
	for (i = 0; i < n_sinks; i++) {
		if (sinks[i]->ops->end)
			sinks[i]->ops->end(sinks[i]);
		pthread_mutex_unlock(&sinks[i]->lock);
	}
	advance(ring, at);
	return at != before && at < end;
}
