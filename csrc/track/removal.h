/* SPDX-License-Identifier: MIT */
/* Backends go: their rows are used again, and their counts stay in the tracker's `removed`. */
#ifndef LBL_TRACK_REMOVAL_H
#define LBL_TRACK_REMOVAL_H

#include "track/parts.h"

/* cdef: begin */
/*
 * Remove a backend; its counts stay in the row LBL_REMOVED of a snapshot. Returns whether there was
 * one, or -ENOMEM.
 */
int lbl_tracker_remove(struct lbl_tracker *tracker, uint16_t name, const uint8_t *addr,
		       uint16_t port);
/* cdef: end */

/* Decide whether a backend goes, of which these are all parts. All shards' locks are held. */
typedef bool lbl_may_go(void *ctx, const struct lbl_part *parts, size_t n);

/*
 * Remove each backend that may go. The parts are sorted, as gathered. Drains go on in between. The
 * caller holds the tracker's lock. Returns the number of backends removed.
 */
size_t lbl_remove_parts(struct lbl_tracker *tracker, const struct lbl_part *parts, size_t n,
			lbl_may_go *may_go, void *ctx);

#endif
