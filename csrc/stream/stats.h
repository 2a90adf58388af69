/* SPDX-License-Identifier: MIT */
/* Where the events of streams are, and that none is missing. */
#ifndef LBL_STREAM_STATS_H
#define LBL_STREAM_STATS_H

#include "stream/stream.h"

/* cdef: begin */
/* Since the streams were opened. produced = received + dropped + in_ring. */
struct lbl_stream_stats {
	uint64_t produced; /* events that producers wanted to send, by their own count */
	uint64_t received; /* records taken off the rings */
	uint64_t dropped; /* events that the rings had no room for, by the producers' count */
	uint64_t in_ring; /* records that wait in the rings */
	uint64_t corrupt; /* times that a ring made no sense and was skipped to its end */
	uint64_t fill_bytes;
	uint64_t fill_max_bytes; /* the highest fills that drains have found */
	uint64_t size_bytes;
	bool counted; /* false: `produced` and `dropped` are not known */
};

/*
 * Of `n` streams together, which include all that the producers of one counters map write to.
 * A difference from the sum above is a loss that nobody has explained.
 */
int lbl_stream_stats(struct lbl_stream *const *streams, size_t n, struct lbl_stream_stats *ret);
/* cdef: end */

/*
 * The same, and call `visit` for each stream under the lock under which events move, so that what
 * it reads agrees with `received`. It may be called for all streams several times: the last counts.
 */
int lbl_stream_visit(struct lbl_stream *const *streams, size_t n,
		     void (*visit)(void *ctx, size_t i, const struct lbl_drain_counts *counts),
		     void *ctx, struct lbl_stream_stats *ret);

#endif
