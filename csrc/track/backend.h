/* SPDX-License-Identifier: MIT */
/* One backend of a tracker, for durations observed by the program itself. */
#ifndef LBL_TRACK_BACKEND_H
#define LBL_TRACK_BACKEND_H

#include "track/tracker.h"

/* cdef: begin */
struct lbl_backend;

/*
 * Get a backend's histogram of one latency, valid while the tracker lives, also if the backend is
 * removed meanwhile: recording adds it again. It is the overflow backend while there are too many.
 * `name` is from lbl_tracker_name(), `addr` as in lbl_event, `port` in host
 * order. The caller frees it with lbl_backend_free(). -ENOENT if the tracker does not record this
 * latency, -ENOMEM.
 */
int lbl_tracker_backend(struct lbl_tracker *tracker, enum lbl_metric metric, uint16_t name,
			const uint8_t *addr, uint16_t port, struct lbl_backend **ret);

void lbl_backend_free(struct lbl_backend *backend);

/*
 * Record a duration in seconds. Thread-safe. Returns 0, -EINVAL if it is NaN, infinite, negative or
 * more than 2^62 ns, or -ENOMEM.
 */
int lbl_backend_observe(struct lbl_backend *backend, double seconds);
/* The same, but returns -EBUSY instead of waiting for another thread or adding the backend. */
int lbl_backend_try_observe(struct lbl_backend *backend, double seconds);

/* Return 0 if all durations can be recorded, or -EINVAL with the first other one's index in `ret`. */
int lbl_durations_check(const double *seconds, size_t n, size_t *ret);

/*
 * Record `n` durations in seconds. If one is invalid, none is recorded: returns -EINVAL, with its
 * index in `ret`. -ENOMEM if memory was exhausted and some were not recorded.
 */
int lbl_backend_observe_many(struct lbl_backend *backend, const double *seconds, size_t n,
			     size_t *ret);

/*
 * Add a histogram, given as `n` (slot, count) pairs of the same bounds, with a sum in ns of 128
 * bits. On failure nothing is added, except after -ENOMEM, where it may have been in part: -EINVAL
 * for pairs that lbl_hist_check() refuses and for a sum of more than 2^62 ns per duration, -ERANGE
 * if the tracker would have observed more than 2^62 durations.
 */
int lbl_backend_add(struct lbl_backend *backend, size_t n, const uint16_t *slots,
		    const uint64_t *counts, uint64_t sum_lo, uint64_t sum_hi);
/* cdef: end */

#endif
