// SPDX-License-Identifier: MIT
/* Taking records off the ring, in runs of equal length where they come so, and handing them on. */
#include "record/shard.h"
#include "stream/drain.h"
#include "stream/queue.h"
#include "stream/stream.h"

/* Records between two releases of the ring and of the locks. */
enum { BATCH_MAX = 1024 };

static void deliver_run(struct lbl_stream *stream, const void *first, uint32_t n)
{
	uint32_t i, k;

	for (i = 0; i < stream->n_shards; i++)
		lbl_shard_record_burst(stream->shards[i], first, n);
	for (i = 0; i < stream->n_queues; i++)
		for (k = 0; k < n; k++)
			lbl_queue_push(stream->queues[i], (const char *)first + k * 64UL,
				       LBL_EVENT_BYTES);
}

static void deliver(struct lbl_stream *stream, const void *data, uint32_t len)
{
	uint32_t i;

	for (i = 0; i < stream->n_shards; i++)
		lbl_shard_record(stream->shards[i], data, len);
	for (i = 0; i < stream->n_queues; i++)
		lbl_queue_push(stream->queues[i], data, len);
}

/* How many submitted 56-byte events stand in a row. */
static uint32_t run_length(const struct lbl_ring *ring, uint64_t at, uint64_t end)
{
	const uint8_t *first = ring->data + (at & ring->mask), *last, *header;
	uint64_t most = (end - at) / 64;

	last = first + (most < LBL_BURST_MAX ? most : LBL_BURST_MAX) * 64;
	for (header = first; header < last; header += 64)
		if (lbl_record_len(header) != LBL_EVENT_BYTES)
			break;
	return (uint32_t)(header - first) / 64;
}

/* One record of another kind. Returns the position behind it; `at` if it is not submitted yet. */
static uint64_t drain_one(struct lbl_stream *stream, uint64_t at, uint64_t end)
{
	uint32_t len = lbl_ring_len(&stream->ring, at);
	uint64_t next = at + lbl_ring_stride(len & LBL_RING_LEN);

	if (len & LBL_RING_BUSY)
		return at;
	if (next > end) {
		lbl_owner_add(&stream->corrupt, 1);
		return end;
	}
	if (!(len & LBL_RING_DISCARDED)) {
		deliver(stream, lbl_ring_data(&stream->ring, at), len);
		lbl_owner_add(&stream->received, 1);
	}
	return next;
}

/* Drain up to BATCH_MAX records before `end`, and release them. Returns the new position. */
static uint64_t drain_batch(struct lbl_stream *stream, uint64_t at, uint64_t end)
{
	uint32_t left = BATCH_MAX, i;

	for (i = 0; i < stream->n_shards; i++)
		pthread_mutex_lock(&stream->shards[i]->lock);
	while (left && at < end) {
		uint32_t n = run_length(&stream->ring, at, end);
		uint64_t next = at + n * 64UL;

		if (n) {
			deliver_run(stream, lbl_ring_data(&stream->ring, at), n);
			lbl_owner_add(&stream->received, n);
		} else {
			next = drain_one(stream, at, end);
			if (next == at)
				break;
		}
		n += !n;
		left -= n < left ? n : left;
		at = next;
	}
	for (i = 0; i < stream->n_shards; i++)
		pthread_mutex_unlock(&stream->shards[i]->lock);
	__atomic_store_n(stream->ring.consumer_pos, at, __ATOMIC_RELEASE);
	return at;
}

/* Only what is in the ring at the start: following a producer closely would slow it down. */
void lbl_drain(struct lbl_stream *stream)
{
	const struct lbl_ring *ring = &stream->ring;
	uint64_t at, end, next;

	pthread_mutex_lock(&stream->lock);
	at = *ring->consumer_pos;
	end = __atomic_load_n(ring->producer_pos, __ATOMIC_ACQUIRE);
	if (!lbl_ring_sane(ring, at, end)) {
		lbl_owner_add(&stream->corrupt, 1);
		__atomic_store_n(ring->consumer_pos, end, __ATOMIC_RELEASE);
		at = end;
	}
	if (end - at > stream->fill_max)
		WRITE_ONCE(&stream->fill_max, end - at);
	while (at < end) {
		next = drain_batch(stream, at, end);
		if (next == at)
			break;
		at = next;
		pthread_mutex_unlock(&stream->lock);
		pthread_mutex_lock(&stream->lock);
		at = *ring->consumer_pos; /* somebody else may have drained meanwhile */
	}
	pthread_mutex_unlock(&stream->lock);
}
