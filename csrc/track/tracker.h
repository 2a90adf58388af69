/* SPDX-License-Identifier: MIT */
/* A tracker: per-backend histograms of the streams that it is started on. */
#ifndef LBL_TRACK_TRACKER_H
#define LBL_TRACK_TRACKER_H

#include "record/shard.h"
#include "source/conntrack.h"
#include "stream/stats.h"

/* cdef: begin */
struct lbl_tracker;

enum { LBL_BACKENDS_MAX = 1 << 24 };

/*
 * `buckets`: of each latency by enum lbl_metric, NULL for those that are not to be recorded;
 * lifetimes always are. More than `max_backends` (at most LBL_BACKENDS_MAX) backends share one, the
 * overflow backend. -EINVAL, or -ENOMEM if there is not enough address space.
 */
int lbl_tracker_new(struct lbl_buckets *const *buckets, uint32_t max_backends,
		    struct lbl_tracker **ret);
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
	bool has_vip; /* also of events without proxy id that were addressed to this: */
	uint8_t vip_addr[16];
	uint16_t vip_port;
};

/*
 * Record the events of all `n` streams from now on, or of none if it fails. The first proxy is the
 * streams' own. `conntrack` may be NULL. -EALREADY while the tracker is running, -EBUSY if a stream
 * is given twice, -ENOSPC if a stream has no room for another sink, -ECHILD.
 */
int lbl_tracker_start(struct lbl_tracker *tracker, struct lbl_stream *const *streams, size_t n,
		      struct lbl_conntrack *conntrack, const struct lbl_proxy *proxies,
		      size_t n_proxies);

/* Drain all streams once more and let go of them. What was recorded stays. */
void lbl_tracker_stop(struct lbl_tracker *tracker);

/* False in a child of fork() too. */
bool lbl_tracker_running(struct lbl_tracker *tracker);

/* Since the tracker was made, over all starts and stops; at one moment. */
struct lbl_tracker_stats {
	struct lbl_stream_stats events;
	struct lbl_outcomes outcomes; /* events.received = opened + closed + periodic + malformed */
	bool running; /* false in a child of fork() */
	uint16_t proxy; /* name of the first proxy of the last start; 0 = never started */
};

int lbl_tracker_stats(struct lbl_tracker *tracker, struct lbl_tracker_stats *ret);

/* Forget all histograms and counts of backends. Nothing recorded meanwhile is counted twice. */
void lbl_tracker_reset(struct lbl_tracker *tracker);
/* cdef: end */

#endif
