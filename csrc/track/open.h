/* SPDX-License-Identifier: MIT */
/*
 * What is known of open connections: a backend's number is that of opened events minus closed ones,
 * over all rings. It is wrong by events that were lost, and by connections whose row has gone before
 * they closed. The caller holds the tracker's lock.
 */
#ifndef LBL_TRACK_OPEN_H
#define LBL_TRACK_OPEN_H

#include "track/parts.h"

/*
 * Return how many connections of a backend are known to be open, by all its parts; below 0 if opens
 * are missing.
 */
int64_t lbl_open_of(const struct lbl_part *parts, size_t n);

/*
 * Return by how much a number of open connections can be wrong, if `lost` events were lost in all.
 * A new start, or a reset if there is such an error, starts at 0.
 */
uint64_t lbl_open_error(const struct lbl_tracker *tracker, uint64_t lost);

/* Account for connections that are open while their backend's rows go. */
void lbl_open_forget(struct lbl_tracker *tracker, const struct lbl_part *parts, size_t n);

/* From now on nothing is known to be open, and there is no error. */
void lbl_open_restart(struct lbl_tracker *tracker, uint64_t lost);

#endif
