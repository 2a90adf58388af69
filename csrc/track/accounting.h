/* SPDX-License-Identifier: MIT */
/*
 * What a tracker's streams have delivered to it, so that of each tracker alone
 *
 *	produced = received + dropped + in_ring
 *	received = opened + closed + periodic + malformed
 *
 * at any moment. All with the tracker's lock held.
 */
#ifndef LBL_TRACK_ACCOUNTING_H
#define LBL_TRACK_ACCOUNTING_H

#include "track/state.h"

/* Before attaching: what was dropped by then is not this tracker's. */
int lbl_accounting_begin(struct lbl_tracker *tracker);

/* Now: earlier attachments and these. */
int lbl_accounting_read(struct lbl_tracker *tracker, struct lbl_stream_stats *events,
			struct lbl_outcomes *outcomes);

/* Detach from all streams, and add what they have delivered to the past. */
void lbl_accounting_end(struct lbl_tracker *tracker);

#endif
