/* SPDX-License-Identifier: MIT */
/* What a tracker is made of, for lbl_tracker.c and lbl_snapshot.c. */
#ifndef LBL_TRACKER_H
#define LBL_TRACKER_H

#include "lbl_stream.h"

enum { LBL_BACKENDS_MAX = 1 << 24 };

struct lbl_attachment {
	struct lbl_stream *stream;
	struct lbl_shard *shard;
};

/* `lock` guards the attachments, and lets one reader or resetter at a time at the tables. */
struct lbl_tracker {
	struct lbl_fork_entry fork;
	pthread_mutex_t lock;
	struct lbl_layout *layout;
	uint32_t max_backends;
	struct lbl_names *names;
	struct lbl_shard *own;
	struct lbl_totals *totals; /* for folding, which must not fail for lack of it */
	struct lbl_attachment *attached;
	size_t n_attached;
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
