/* SPDX-License-Identifier: MIT */
/* One backend of a tracker, to observe durations of by hand. */
#ifndef LBL_TRACK_BACKEND_H
#define LBL_TRACK_BACKEND_H

#include "track/tracker.h"

/* cdef: begin */
struct lbl_backend;

/*
 * A backend to observe a latency of, while the tracker lives; the overflow backend if there are
 * too many. `addr` as in lbl_event. -ENOENT if the tracker does not record this latency.
 */
int lbl_tracker_backend(struct lbl_tracker *tracker, enum lbl_metric metric, uint16_t name,
			const uint8_t *addr, uint16_t port, struct lbl_backend **ret);

void lbl_backend_free(struct lbl_backend *backend);

/* Record seconds. -EINVAL for NaN, infinities, negatives and more than 2^62 ns; -ENOMEM. */
int lbl_backend_observe(struct lbl_backend *backend, double seconds);
/* The same, but -EBUSY if it would have to wait for another thread. */
int lbl_backend_try_observe(struct lbl_backend *backend, double seconds);

/*
 * Record all of `seconds`, or none if one of them is invalid: then -EINVAL, and which in `ret`.
 * -ENOMEM if memory ran out and some were not recorded.
 */
int lbl_backend_observe_many(struct lbl_backend *backend, const double *seconds, size_t n,
			     size_t *ret);
/* cdef: end */

#endif
