/* SPDX-License-Identifier: MIT */
/* A copy of all backends of a tracker, merged over its streams. */
#ifndef LBL_TRACK_SNAPSHOT_H
#define LBL_TRACK_SNAPSHOT_H

#include "track/tracker.h"

/* cdef: begin */
/* Ports of rows without a name: backends that are not told apart, and those that were removed. */
enum lbl_nameless { LBL_OVERFLOW, LBL_REMOVED };

/* A backend, its connections and the histogram of one latency. */
struct lbl_backend_snapshot {
	uint16_t name; /* number of the proxy's name; 0 = enum lbl_nameless */
	uint16_t port;
	uint8_t addr[16];
	uint64_t count;
	uint64_t sum_lo; /* ns, 128 bits */
	uint64_t sum_hi;
	uint64_t opened; /* opened since the last reset, plus those open at that time */
	uint64_t open; /* open now, if an attached stream reported the opening */
	uint64_t closed[LBL_REASONS]; /* by enum lbl_reason, without health probes */
	uint64_t probes;
	uint64_t rank; /* ascending in the order in which the backends came, as long as they stay */
	uint64_t first; /* its (slot, count) pairs are [first, first + n) */
	uint32_t n;
};

struct lbl_snapshot {
	struct lbl_backend_snapshot *rows;
	size_t n_rows;
	uint16_t *slots;
	uint64_t *counts;
	size_t n_pairs;
};

/*
 * Copy all backends; the caller frees the snapshot with lbl_snapshot_free(). Each counter is
 * consistent; the set is not a point in time. -ENOENT if the tracker does not record this latency,
 * -ENOMEM.
 */
int lbl_tracker_snapshot(struct lbl_tracker *tracker, enum lbl_metric metric,
			 struct lbl_snapshot **ret);

/*
 * The same without what a child of fork() has copied of its parent's streams, which the parent
 * exports.
 */
int lbl_tracker_snapshot_own(struct lbl_tracker *tracker, enum lbl_metric metric,
			     struct lbl_snapshot **ret);

/* The same as the first for one backend: the snapshot has one row, or none if the backend is unknown. */
int lbl_tracker_snapshot_one(struct lbl_tracker *tracker, enum lbl_metric metric, uint16_t name,
			     const uint8_t *addr, uint16_t port, struct lbl_snapshot **ret);
void lbl_snapshot_free(struct lbl_snapshot *snapshot);
/* cdef: end */

/* Who is shown one backend after another, with the tracker's lock. */
struct lbl_visitor {
	/*
	 * Called with a backend's name and its connections. Returns whether to read its histograms.
	 * They are as in an earlier visit that had the same two numbers: `activity` changes if anything
	 * is recorded for the backend, `cleared` if any counts were set back.
	 */
	bool (*begin)(void *context, const struct lbl_backend_snapshot *row, uint64_t activity,
		      uint64_t cleared);
	/*
	 * Then called once per latency that the tracker records, in the order of enum lbl_metric, with
	 * the row and its row->n pairs. Returns 0, or -errno to end the visit.
	 */
	int (*row)(void *context, enum lbl_metric metric, const struct lbl_backend_snapshot *row,
		   const uint16_t *slots, const uint64_t *counts);
};

/*
 * Read all backends like lbl_tracker_snapshot(), without a copy of them all. Returns 0, the error of
 * `visitor`, or -ENOMEM.
 */
int lbl_tracker_visit(struct lbl_tracker *tracker, const struct lbl_visitor *visitor,
		      void *context);

#endif
