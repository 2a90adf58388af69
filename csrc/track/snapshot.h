/* SPDX-License-Identifier: MIT */
/* All backends of a tracker at one time, merged over its streams. */
#ifndef LBL_TRACK_SNAPSHOT_H
#define LBL_TRACK_SNAPSHOT_H

#include "track/tracker.h"

/* cdef: begin */
/* A backend, with the histogram of one latency. */
struct lbl_backend_snapshot {
	uint16_t name; /* of the proxy; 0: the overflow backend */
	uint16_t port;
	uint8_t addr[16];
	uint64_t count;
	uint64_t sum_lo; /* ns, 128 bits */
	uint64_t sum_hi;
	uint64_t opened; /* since a reset, and those open then */
	uint64_t open; /* now, of those seen to open by a stream that is attached */
	uint64_t closed[LBL_REASONS]; /* by enum lbl_reason; health probes not included */
	uint64_t probes;
	uint64_t first; /* its pairs are [first, first + n) of the snapshot's */
	uint32_t n;
};

struct lbl_snapshot {
	struct lbl_backend_snapshot *rows;
	size_t n_rows;
	uint16_t *slots;
	uint64_t *counts;
	size_t n_pairs;
};

/* All backends. -ENOENT if the tracker does not record this latency. */
int lbl_tracker_snapshot(struct lbl_tracker *tracker, enum lbl_metric metric,
			 struct lbl_snapshot **ret);

/* The same with one row at the most: the backend asked for. */
int lbl_tracker_snapshot_one(struct lbl_tracker *tracker, enum lbl_metric metric, uint16_t name,
			     const uint8_t *addr, uint16_t port, struct lbl_snapshot **ret);
void lbl_snapshot_free(struct lbl_snapshot *snapshot);
/* cdef: end */

#endif
