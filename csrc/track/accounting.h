/* SPDX-License-Identifier: MIT */
/*
 * The events that a tracker's streams have delivered to it. At any moment, for each tracker alone:
 *
 *	produced = received + taken + dropped + in_ring
 *	received = opened + closed + periodic + malformed
 *
 * The caller of each function holds the tracker's lock.
 */
#ifndef LBL_TRACK_ACCOUNTING_H
#define LBL_TRACK_ACCOUNTING_H

#include "track/state.h"

/* Call before attaching: events dropped so far are not the tracker's. Returns 0 or -errno. */
int lbl_accounting_begin(struct lbl_tracker *tracker);

/* Read the current sums over all earlier and present attachments. Returns 0 or -errno. */
int lbl_accounting_read(struct lbl_tracker *tracker, struct lbl_stream_stats *events,
			struct lbl_outcomes *outcomes);

/* Return the number of events lost, any of which may have been an opened or closed one. */
static inline uint64_t lbl_lost(const struct lbl_stream_stats *events,
				const struct lbl_outcomes *outcomes)
{
	return lbl_stream_lost(events) + outcomes->malformed;
}

/* Return the number of events lost so far; lost_before if it cannot be read. */
uint64_t lbl_accounting_lost(struct lbl_tracker *tracker);

/* Drain and detach from all streams, and add their counts to `past`. */
void lbl_accounting_end(struct lbl_tracker *tracker);

#endif
