// SPDX-License-Identifier: MIT
#include <sched.h>

#include "kernel/counters.h"
#include "stream/stats.h"

enum { RETRIES_MAX = 50 };

struct visit {
	void (*call)(void *ctx, size_t i, const struct lbl_drain_counts *counts);
	void *ctx;
};

/* Whether no earlier stream reads the same counters map. */
static bool is_first(struct lbl_stream *const *streams, size_t i)
{
	uint32_t id = streams[i]->counters_id;
	size_t k;

	for (k = 0; id && k < i; k++) {
		if (streams[k]->counters_id == id)
			return false;
	}
	return true;
}

static int add_kernel_counters(const struct lbl_stream *stream, struct lbl_counters *sum)
{
	struct lbl_counters counters;
	int err;

	if (stream->counters_fd < 0 || stream->orphaned)
		return 0;
	err = lbl_counters_sum(stream->counters_fd, (uint64_t *)&counters,
			       sizeof(counters) / sizeof(uint64_t));
	if (err)
		return err;
	sum->produced += counters.produced;
	sum->dropped += counters.dropped;
	return 0;
}

static int read_counters(struct lbl_stream *const *streams, size_t n, struct lbl_counters *ret)
{
	int err = 0;
	size_t i;

	*ret = (struct lbl_counters){ 0 };
	for (i = 0; i < n && !err; i++) {
		if (is_first(streams, i))
			err = add_kernel_counters(streams[i], ret);
	}
	return err;
}

/* An orphaned stream's ring belongs to the parent process, so its counts are frozen. */
static void read_orphan(const struct lbl_stream *stream, bool first, struct lbl_counters *memory,
			struct lbl_stream_stats *ret)
{
	uint64_t dropped = first ? stream->produced.dropped : 0;

	memory->dropped += dropped;
	memory->produced += stream->consumed_before + stream->counts.received + dropped;
	ret->size_bytes += stream->ring.mask + 1;
}

static void read_ring(const struct lbl_stream *stream, struct lbl_counters *memory,
		      struct lbl_stream_stats *ret)
{
	memory->produced += stream->produced.produced;
	memory->dropped += stream->produced.dropped;
	ret->in_ring += lbl_ring_waiting(&stream->ring);
	ret->fill_bytes += lbl_ring_fill(&stream->ring);
	ret->size_bytes += stream->ring.mask + 1;
}

/* Holding both locks freezes a ring in memory, so its counters and its fill agree. */
static void read_stream(struct lbl_stream *const *streams, size_t i, const struct visit *visit,
			struct lbl_counters *memory, struct lbl_stream_stats *ret)
{
	struct lbl_stream *stream = streams[i];

	pthread_mutex_lock(&stream->producing);
	pthread_mutex_lock(&stream->lock);
	if (stream->orphaned)
		read_orphan(stream, is_first(streams, i), memory, ret);
	else
		read_ring(stream, memory, ret);
	ret->received += stream->counts.received;
	ret->corrupt += stream->counts.corrupt;
	ret->fill_max_bytes += stream->counts.fill_max;
	ret->counted &= stream->counted;
	if (visit->call)
		visit->call(visit->ctx, i, &stream->counts);
	pthread_mutex_unlock(&stream->lock);
	pthread_mutex_unlock(&stream->producing);
}

/* Sum the producers' counts from before the streams were opened. */
static struct lbl_counters counted_before(struct lbl_stream *const *streams, size_t n)
{
	struct lbl_counters before = { 0 };
	size_t i;

	for (i = 0; i < n; i++) {
		uint64_t dropped = is_first(streams, i) ? streams[i]->dropped_before : 0;

		before.dropped += dropped;
		before.produced += dropped + streams[i]->consumed_before;
	}
	return before;
}

/*
 * Producers keep counting while the rings are read, so their counters are read before and after. If
 * the sum of all events lies between the two, it is the number produced; otherwise the nearer
 * counter is. Returns whether produced equals the sum.
 */
static bool balance(struct lbl_stream_stats *stats, uint64_t least, uint64_t most)
{
	uint64_t sum = stats->received + stats->dropped + stats->in_ring;

	stats->produced = sum;
	if (!stats->counted)
		return true;
	if ((int64_t)(sum - least) < 0)
		stats->produced = least;
	else if ((int64_t)(most - sum) < 0)
		stats->produced = most;
	return stats->produced == sum;
}

static int read_once(struct lbl_stream *const *streams, size_t n, const struct visit *visit,
		     struct lbl_stream_stats *ret)
{
	const struct lbl_counters base = counted_before(streams, n);
	struct lbl_counters before, after, memory = { 0 };
	size_t i;
	int err;

	*ret = (struct lbl_stream_stats){ .counted = true };
	err = read_counters(streams, n, &before);
	if (err)
		return err;
	for (i = 0; i < n; i++)
		read_stream(streams, i, visit, &memory, ret);
	err = read_counters(streams, n, &after);
	if (err)
		return err;
	ret->dropped = before.dropped + memory.dropped - base.dropped;
	return balance(ret, before.produced + memory.produced - base.produced,
		       after.produced + memory.produced - base.produced)
		       ? 0
		       : -EAGAIN;
}

/*
 * An event counted as produced but not yet in the ring unbalances the sum for an instant, so retry.
 * If the sum stays unbalanced, report it as it is.
 */
int lbl_stream_visit(struct lbl_stream *const *streams, size_t n,
		     void (*visit)(void *ctx, size_t i, const struct lbl_drain_counts *counts),
		     void *ctx, struct lbl_stream_stats *ret)
{
	const struct visit each = { visit, ctx };
	int retries = RETRIES_MAX, err;

	while ((err = read_once(streams, n, &each, ret)) == -EAGAIN && retries--)
		sched_yield();
	return err == -EAGAIN ? 0 : err;
}

int lbl_stream_stats(struct lbl_stream *const *streams, size_t n, struct lbl_stream_stats *ret)
{
	return lbl_stream_visit(streams, n, NULL, NULL, ret);
}
