/* SPDX-License-Identifier: MIT */
/* Where the events of streams are: produced = received + dropped + in_ring. */
#ifndef LBL_STREAM_STATS_H
#define LBL_STREAM_STATS_H

#include "stream/stream.h"

/* cdef: begin */
/* Sums over streams, since they were opened. */
struct lbl_stream_stats {
	uint64_t produced; /* events that producers tried to send, by their counters */
	uint64_t received; /* records read from the rings */
	uint64_t dropped; /* events that did not fit into a ring, by the producers' counters */
	uint64_t in_ring; /* records in the rings */
	uint64_t corrupt; /* times a ring was invalid and skipped to its end */
	uint64_t fill_bytes;
	uint64_t fill_max_bytes; /* highest fills found by drains */
	uint64_t size_bytes;
	bool counted; /* false: `produced` and `dropped` are unknown */
};

/*
 * Read the sums over `n` streams, which must include all streams of each counters map. If the sum
 * above does not hold, events were lost without being counted. Returns 0 or -errno.
 */
int lbl_stream_stats(struct lbl_stream *const *streams, size_t n, struct lbl_stream_stats *ret);
/* cdef: end */

/*
 * The same, and call `visit` for each stream under the lock that the drain holds, so that what it
 * reads agrees with `received`. Retries repeat the calls for all streams; use the last ones.
 */
int lbl_stream_visit(struct lbl_stream *const *streams, size_t n,
		     void (*visit)(void *ctx, size_t i, const struct lbl_drain_counts *counts),
		     void *ctx, struct lbl_stream_stats *ret);

#endif
