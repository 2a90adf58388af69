// SPDX-License-Identifier: MIT
#include "track/accounting.h"

int lbl_accounting_begin(struct lbl_tracker *tracker)
{
	struct lbl_stream_stats stats = { 0 };
	int err = lbl_ledger_restart(tracker->ledger, &stats);

	tracker->dropped_before = stats.dropped;
	return err;
}

/* ---- reading ---- */

struct reading {
	const struct lbl_tracker *tracker;
	struct lbl_outcomes *outcomes;
};

/* Runs under the stream's lock, which the drain holds while events become outcomes. */
static void read_outcomes(void *ctx, size_t i, const struct lbl_drain_counts *counts)
{
	const struct reading *reading = ctx;

	(void)counts;
	if (i == 0)
		*reading->outcomes = (struct lbl_outcomes){ 0 };
	lbl_outcomes_add(reading->outcomes, &reading->tracker->attached[i].shard->outcomes);
}

/* Reduce the streams' counts to this tracker's part. */
static void subtract_before(const struct lbl_tracker *tracker, struct lbl_stream_stats *stats)
{
	size_t i;

	for (i = 0; i < tracker->n_attached; i++) {
		const struct lbl_drain_counts *before = &tracker->attached[i].before;

		stats->produced -= before->received + before->taken;
		stats->received -= before->received;
		stats->taken -= before->taken;
		stats->moved -= before->moved;
		stats->replaced -= before->replaced;
		stats->corrupt -= before->corrupt;
	}
	stats->produced -= tracker->dropped_before;
	stats->dropped -= tracker->dropped_before;
}

static int read_attached(const struct lbl_tracker *tracker, struct lbl_stream_stats *events,
			 struct lbl_outcomes *outcomes)
{
	struct reading reading = { tracker, outcomes };
	int err;

	*events = (struct lbl_stream_stats){ .counted = 1 };
	if (!tracker->n_attached)
		return 0;
	err = lbl_ledger_visit(tracker->ledger, read_outcomes, &reading, events);
	subtract_before(tracker, events);
	return err;
}

static void add_past(struct lbl_stream_stats *stats, const struct lbl_stream_stats *past)
{
	stats->produced += past->produced;
	stats->received += past->received;
	stats->taken += past->taken;
	stats->moved += past->moved;
	stats->replaced += past->replaced;
	stats->dropped += past->dropped;
	stats->corrupt += past->corrupt;
	stats->counted &= past->counted;
}

/*
 * Records that were told as in a ring when the tracker stopped are told so until a later start
 * brings them, or others in their place.
 */
static void keep_told(struct lbl_tracker *tracker, struct lbl_stream_stats *events)
{
	if (!events->counted)
		return;
	if (events->produced < tracker->produced_told) {
		events->in_ring += tracker->produced_told - events->produced;
		events->produced = tracker->produced_told;
	}
	tracker->produced_told = events->produced;
}

int lbl_accounting_read(struct lbl_tracker *tracker, struct lbl_stream_stats *events,
			struct lbl_outcomes *outcomes)
{
	int err;

	*outcomes = (struct lbl_outcomes){ 0 };
	err = read_attached(tracker, events, outcomes);
	if (err)
		return err;
	add_past(events, &tracker->past);
	keep_told(tracker, events);
	pthread_mutex_lock(&tracker->own->sink.lock);
	lbl_outcomes_add(outcomes, &tracker->own->outcomes);
	pthread_mutex_unlock(&tracker->own->sink.lock);
	return 0;
}

uint64_t lbl_accounting_lost(struct lbl_tracker *tracker)
{
	struct lbl_stream_stats events;
	struct lbl_outcomes outcomes;

	if (lbl_accounting_read(tracker, &events, &outcomes))
		return tracker->lost_before;
	return lbl_lost(&events, &outcomes);
}

/* ---- ending ---- */

/*
 * Events still in the rings after the last drain are not this tracker's. If the sum of its other
 * events is unbalanced, it stays so.
 */
void lbl_accounting_end(struct lbl_tracker *tracker)
{
	struct lbl_stream_stats stats, *past = &tracker->past;
	struct lbl_outcomes unused;
	uint64_t received = 0, taken = 0;
	size_t i;

	for (i = 0; i < tracker->n_attached; i++)
		lbl_stream_drain(tracker->streams[i]);
	read_attached(tracker, &stats, &unused); /* if that fails, the last reading has to do */
	for (i = 0; i < tracker->n_attached; i++) {
		struct lbl_attachment *attached = &tracker->attached[i];
		struct lbl_drain_counts last;

		lbl_stream_detach(attached->stream, &attached->shard->sink, &last);
		received += last.received - attached->before.received;
		taken += last.taken - attached->before.taken;
		past->moved += last.moved - attached->before.moved;
		past->replaced += last.replaced - attached->before.replaced;
		past->corrupt += last.corrupt - attached->before.corrupt;
	}
	past->received += received;
	past->taken += taken;
	past->dropped += stats.dropped;
	past->produced +=
		received + taken + stats.produced - stats.received - stats.taken - stats.in_ring;
	past->counted &= stats.counted;
	tracker->dropped_before = 0;
}
