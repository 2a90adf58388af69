/* SPDX-License-Identifier: MIT */
/* A tracker: per-backend histograms of the streams that it is attached to. */
#ifndef LBL_TRACK_TRACKER_H
#define LBL_TRACK_TRACKER_H

#include "hist/buckets.h"
#include "record/shard.h"
#include "source/conntrack.h"
#include "stream/stream.h"

/* cdef: begin */
struct lbl_tracker;
struct lbl_backend;

enum { LBL_BACKENDS_MAX = 1 << 24 };

/* More than `max_backends` (at most LBL_BACKENDS_MAX) backends share one, the overflow backend. */
int lbl_tracker_new(struct lbl_buckets *buckets, uint32_t max_backends, struct lbl_tracker **ret);
void lbl_tracker_free(struct lbl_tracker *tracker);

/*
 * The number of a proxy's name, the same whenever the same `len` bytes are given; 1 to 65535, since
 * 0 is the overflow's. -ENOSPC beyond that.
 */
int lbl_tracker_name(struct lbl_tracker *tracker, const char *name, size_t len);

/* The same, or -ENOENT if the name was never given a number. */
int lbl_tracker_find_name(struct lbl_tracker *tracker, const char *name, size_t len);

/* The bytes behind a number, in `*len`; they live as long as the tracker. NULL if there is none. */
const char *lbl_tracker_name_text(struct lbl_tracker *tracker, uint16_t name, size_t *len);

/* Which proxy an event belongs to. An id that nobody named is called "proxy-<id>". */
struct lbl_proxy {
	uint16_t id; /* proxy_id of the event */
	uint16_t name; /* of lbl_tracker_name() */
	bool has_vip; /* also of 64- and 72-byte events that were addressed to this: */
	uint8_t vip_addr[16];
	uint16_t vip_port;
};

/*
 * Record the stream's events from now on. `conntrack` may be NULL. -EBUSY if the tracker is
 * attached to this stream already.
 */
int lbl_tracker_attach(struct lbl_tracker *tracker, struct lbl_stream *stream,
		       struct lbl_conntrack *conntrack, const struct lbl_proxy *proxies, size_t n);

/* Drain all streams once more and detach from them. What was recorded stays. */
void lbl_tracker_detach(struct lbl_tracker *tracker);

void lbl_tracker_stats(struct lbl_tracker *tracker, struct lbl_tracker_stats *ret);

/* Forget all histograms and counts of backends. Nothing recorded meanwhile is counted twice. */
void lbl_tracker_reset(struct lbl_tracker *tracker);
/* cdef: end */

struct lbl_attachment {
	struct lbl_stream *stream;
	struct lbl_shard *shard;
};

/* `lock` guards the attachments, and lets one reader or resetter at a time at the tables. */
struct lbl_tracker {
	struct lbl_fork_entry fork;
	pthread_mutex_t lock;
	struct lbl_buckets *buckets;
	uint32_t max_backends;
	struct lbl_intern *names;
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
