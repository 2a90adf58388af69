/* SPDX-License-Identifier: MIT */
/* Taking records off a ring, in bursts of equal length where they come so, and handing them on. */
#ifndef LBL_STREAM_DRAIN_H
#define LBL_STREAM_DRAIN_H

#include "stream/ring.h"
#include "stream/sink.h"

struct lbl_drain_counts {
	uint64_t received; /* records taken off the ring and handed on */
	uint64_t corrupt; /* times the ring itself made no sense and was skipped to its end */
	uint64_t fill_max; /* bytes; the highest fill found */
};

/*
 * The position to drain to: the end of what is in the ring now. Skips to it if the positions make
 * no sense.
 */
uint64_t lbl_drain_end(struct lbl_ring *ring, struct lbl_drain_counts *counts);

/*
 * Hand some hundreds of records before `end` to all sinks, under their locks, and release them.
 * Returns false if there are no more before `end`, or the next is not submitted yet.
 */
bool lbl_drain_batch(struct lbl_ring *ring, uint64_t end, struct lbl_sink *const *sinks,
		     uint32_t n_sinks, struct lbl_drain_counts *counts);

#endif
