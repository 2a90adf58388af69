/* SPDX-License-Identifier: MIT */
/*
 * Read records from a ring buffer and pass them to sinks, in bursts where our own events are
 * contiguous.
 */
#ifndef LBL_STREAM_DRAIN_H
#define LBL_STREAM_DRAIN_H

#include "stream/ring.h"
#include "stream/sink.h"

struct lbl_drain_counts {
	uint64_t received; /* records read from the ring and passed to the sinks */
	uint64_t corrupt; /* times the ring was invalid and skipped to its end */
	uint64_t fill_max; /* highest fill at the start of a drain, bytes */
};

/*
 * Return the position up to which to drain: the producer position. Skips the whole ring if the
 * positions are invalid. The caller holds the stream's lock.
 */
uint64_t lbl_drain_end(struct lbl_ring *ring, struct lbl_drain_counts *counts);

/*
 * Pass up to about a thousand records before `end` to all sinks, under the sinks' locks, and
 * advance the consumer position. Returns false if no record remains before `end`, or the next one
 * is not submitted yet. The caller holds the stream's lock.
 */
bool lbl_drain_batch(struct lbl_ring *ring, uint64_t end, struct lbl_sink *const *sinks,
		     uint32_t n_sinks, struct lbl_drain_counts *counts);

#endif
