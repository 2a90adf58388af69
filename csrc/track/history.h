/* SPDX-License-Identifier: MIT */
/*
 * What happened at each backend in the last minutes and hours: the differences of samples of a
 * tracker's counters, in limited memory. All functions are thread-safe, but not for a child of
 * fork().
 */
#ifndef LBL_TRACK_HISTORY_H
#define LBL_TRACK_HISTORY_H

#include "track/columns.h"
#include "track/snapshot.h"

/* cdef: begin */
struct lbl_history;

/*
 * Create a history of trackers' counters at `now_ns`, of up to about `bytes_max` of memory, of which
 * coarse columns take at most a third. `buckets` are those of lbl_tracker_new(); takes references.
 * -EINVAL, or -ENOMEM.
 */
int lbl_history_new(struct lbl_buckets *const *buckets, size_t bytes_max, uint64_t now_ns,
		    struct lbl_history **ret);
void lbl_history_free(struct lbl_history *history);

/*
 * Sample the tracker, always the same one, at `now_ns`, which must grow. The first sample is what
 * later ones are compared with. A count that went down was set to 0 meanwhile, so all of it is new.
 * -EINVAL if the time has not grown; -ENOMEM, with the history as it was.
 */
int lbl_history_sample(struct lbl_history *history, struct lbl_tracker *tracker, uint64_t now_ns);

struct lbl_history_info {
	uint64_t sampled_ns; /* 0 before the second sample */
	uint64_t covered_ns; /* by fine columns */
	uint32_t fine, coarse; /* columns */
	uint32_t backends;
	uint32_t left_out; /* backends without room in the last sample */
	uint64_t bytes, bytes_max;
};

void lbl_history_info(struct lbl_history *history, struct lbl_history_info *ret);
/* cdef: end */

#endif
