/* SPDX-License-Identifier: MIT */
/*
 * A tracker's state: one shard per stream, and an own shard for durations observed by the program
 * and for counts merged from detached streams.
 */
#ifndef LBL_TRACK_STATE_H
#define LBL_TRACK_STATE_H

#include "base/fork.h"
#include "record/shard.h"
#include "source/conntrack.h"
#include "stream/ledger.h"
#include "stream/stream.h"

struct lbl_attachment {
	struct lbl_stream *stream;
	struct lbl_shard *shard;
	struct lbl_conntrack_use conntrack;
	struct lbl_drain_counts before; /* the stream's counts when it was attached */
};

/* When backends go by themselves. The thread waits for `wake` with the tracker's lock. */
struct lbl_expiry {
	uint64_t after_ns; /* 0 = never */
	uint64_t looked_ns; /* when all backends were last looked at */
	pthread_cond_t wake;
	pthread_t thread;
	bool running, stopping;
};

/*
 * `lock` guards the attachments. It excludes readers, resetters and removers from each other, and
 * from whoever lets the own shard's arrays move.
 */
struct lbl_tracker {
	struct lbl_fork_entry fork;
	pthread_mutex_t lock;
	struct lbl_buckets *buckets[LBL_METRICS];
	uint32_t max_backends;
	struct lbl_intern *names;
	struct lbl_shard *own;
	struct lbl_shard *removed; /* its overflow backend has the counts of all removed backends */
	struct lbl_expiry expiry;
	struct lbl_totals *scratch; /* for merging, allocated early so that detaching cannot fail */
	struct lbl_shared shared; /* by the shards of all attachments */
	struct lbl_attachment *attached;
	struct lbl_stream **streams; /* of the attachments */
	size_t n_attached;
	struct lbl_ledger *ledger; /* of the streams; NULL if there are none */
	uint64_t dropped_before; /* by the ledger, when the streams were attached */
	uint64_t produced_told; /* by the last lbl_accounting_read() */
	struct lbl_stream_stats past; /* sums over earlier attachments */
	uint64_t lost_before; /* events lost until the last start or reset */
	uint64_t open_removed; /* connections that were open in rows removed since then */
	bool rows_freed; /* rows were removed since then */
	uint64_t created_ns, started_ns; /* by CLOCK_REALTIME; a reset starts anew */
	uint64_t cleared; /* how often counts were set back, by a reset or a removal */
	uint16_t proxy;
	bool is_copy; /* in a child of fork(), until it starts by itself: streams are the parent's */
};

static inline size_t lbl_tracker_shards(const struct lbl_tracker *tracker)
{
	return tracker->n_attached + 1;
}

static inline struct lbl_shard *lbl_tracker_shard(const struct lbl_tracker *tracker, size_t i)
{
	return i ? tracker->attached[i - 1].shard : tracker->own;
}

#endif
