/* SPDX-License-Identifier: MIT */
/* What a scrape shows, read once. Any number of threads may render it, in any formats. */
#ifndef LBL_RENDER_PAGE_H
#define LBL_RENDER_PAGE_H

#include "render/given.h"

/* cdef: begin */
struct lbl_page;

/* How a tracker shows. All that it points to outlives the page. */
struct lbl_shown {
	const double *bounds[LBL_METRICS]; /* seconds, as they were given, without +Inf */
	const char *label; /* value of the label `tracker`; NULL for none */
	size_t label_bytes;
	bool with_removed; /* show the counts of backends that went */
	size_t max_backends; /* that have rows; later ones are in the row "overflow" */
};

/* Make an empty page. -ENOMEM. */
int lbl_page_new(struct lbl_page **ret);
void lbl_page_free(struct lbl_page *page);

/*
 * Read all counts of a tracker, which outlives the page; in a child of fork(), those that are its
 * own. -ENOMEM, or -errno if its streams' counters cannot be read.
 */
int lbl_page_add(struct lbl_page *page, struct lbl_tracker *tracker, const struct lbl_shown *shown);

/* Return how many backends of the tracker that was added as number `i` have no row of their own. */
size_t lbl_page_folded(const struct lbl_page *page, size_t i);

/* Return what was read of the tracker that was added as number `i`. NULL for another latency. */
const struct lbl_snapshot *lbl_page_snapshot(const struct lbl_page *page, size_t i,
					     enum lbl_metric metric);
const struct lbl_tracker_stats *lbl_page_stats(const struct lbl_page *page, size_t i);

/*
 * Write the cumulative counts of each row, at each classic bound and at +Inf, and its sum in
 * seconds.
 */
void lbl_page_classic(const struct lbl_page *page, size_t i, enum lbl_metric metric,
		      uint64_t *ret_counts, double *ret_sums);

/* Add what user space knows; once, and it outlives the page. Families of the table come first. */
void lbl_page_give(struct lbl_page *page, const struct lbl_given *given);
/* cdef: end */

struct lbl_shown_tracker {
	struct lbl_tracker *tracker;
	struct lbl_shown how;
	struct lbl_tracker_stats stats;
	struct lbl_snapshot *snapshots[LBL_METRICS]; /* NULL for latencies that are not recorded */
	size_t folded; /* backends without a row */
};

struct lbl_page {
	struct lbl_shown_tracker *shown;
	size_t n_shown;
	const struct lbl_given *given; /* may be NULL */
	uint64_t read_ns; /* by CLOCK_REALTIME */
};

#endif
