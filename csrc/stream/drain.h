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
	uint64_t
		taken; /* records that left the ring without us; estimated if they are overwritten */
	uint64_t moved; /* times the consumer position was found moved by somebody else */
	uint64_t corrupt; /* times the ring was invalid and skipped to its end */
	uint64_t replaced; /* times another ring took the ring's place */
	uint64_t fill_max; /* highest fill at the start of a drain, bytes */
};

/*
 * Hold the consumer position that others can write against ours. If it is ahead, the records in
 * between were taken, and we go on there, if a record begins there; otherwise ours is put back, so
 * that nothing comes twice.
 * Skips the whole ring if ours is invalid. The caller holds the stream's lock.
 */
void lbl_drain_settle(struct lbl_ring *ring, struct lbl_drain_counts *counts);

/*
 * Start where the consumer position stands, as the only consumer from now on. Whoever consumed before
 * may have left it anywhere: if it is within a record, the ring is skipped to its end.
 */
void lbl_drain_begin(struct lbl_ring *ring, struct lbl_drain_counts *counts);

/*
 * Settle, and return the position up to which to drain: the producer position. The caller holds the
 * stream's lock.
 */
uint64_t lbl_drain_end(struct lbl_ring *ring, struct lbl_drain_counts *counts);

/*
 * Settle, pass up to about a thousand records before `end` to all sinks, under the sinks' locks, and
 * advance the consumer position. Returns false if no record remains before `end`, or the next one
 * is not submitted yet. The caller holds the stream's lock.
 */
bool lbl_drain_batch(struct lbl_ring *ring, uint64_t end, struct lbl_sink *const *sinks,
		     uint32_t n_sinks, struct lbl_drain_counts *counts);

#endif
