/* SPDX-License-Identifier: MIT */
/*
 * Backends go by themselves when nothing was recorded for a while. A thread looks at all of them
 * from time to time; a child of fork() has no thread, and looks when it reads.
 */
#ifndef LBL_TRACK_EXPIRY_H
#define LBL_TRACK_EXPIRY_H

#include "track/state.h"

/* cdef: begin */
/*
 * Remove backends of which nothing was recorded for `after_ns`, and up to half of that longer, and
 * that have no open connection, unless events were lost since the last reset: what is open is not
 * known then. Call once, before the tracker is shared. Returns 0, -EINVAL for 0, or -EAGAIN if no
 * thread can be made.
 */
int lbl_tracker_expire(struct lbl_tracker *tracker, uint64_t after_ns);
/* cdef: end */

/* Remove what has expired, if the last look is long enough ago. The tracker's lock is held. */
void lbl_expiry_catch_up(struct lbl_tracker *tracker);

/* Return whether lbl_expiry_catch_up() would look. Takes no lock. */
bool lbl_expiry_is_due(const struct lbl_tracker *tracker);

/* Legal without lbl_tracker_expire(). */
void lbl_expiry_stop(struct lbl_tracker *tracker);
/* Call in a child of fork(). */
void lbl_expiry_forked(struct lbl_tracker *tracker);

#endif
