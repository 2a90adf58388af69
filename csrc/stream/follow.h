/* SPDX-License-Identifier: MIT */
/*
 * Follow the pin of a ring: a balancer that restarts may pin another map in its place. The old ring
 * is drained to its end first, then the stream goes on with the new one; its sinks notice nothing.
 */
#ifndef LBL_STREAM_FOLLOW_H
#define LBL_STREAM_FOLLOW_H

#include "stream/stream.h"

/* Copy `from`, which may be NULL. -ENOMEM. */
int lbl_pin_copy(const struct lbl_pin *from, struct lbl_pin *ret);
/* Legal on a zeroed struct. */
void lbl_pin_free(struct lbl_pin *pin);

/*
 * Look what is pinned now, and take it up. If nothing is, or the ring that is pinned is claimed by
 * another or cannot be used, the stream keeps its ring and is not `attached`. But among streams of this
 * process that wait for each other's rings, one leaves its own, once that is drained. Called by the
 * stream's own thread, about once per second, without locks.
 */
void lbl_follow(struct lbl_stream *stream);

#endif
