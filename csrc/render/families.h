/* SPDX-License-Identifier: MIT */
/*
 * All metric families, in one table. The Collector, the README's table and every renderer iterate
 * over it.
 */
#ifndef LBL_RENDER_FAMILIES_H
#define LBL_RENDER_FAMILIES_H

#include "record/metric.h"
#include "track/snapshot.h"

/* cdef: begin */
enum lbl_family_type {
	LBL_COUNTER,
	LBL_GAUGE,
	LBL_HISTOGRAM,
	LBL_GAUGE_HISTOGRAM,
	LBL_INFO,
	/* Not in the table, but of other collectors: */
	LBL_SUMMARY,
	LBL_STATESET,
	LBL_UNKNOWN,
};

/* What a sample describes: the struct that contains the values, and the first labels. */
enum lbl_family_scope {
	LBL_PER_BACKEND, /* struct lbl_backend_snapshot; proxy_name, target_ip, target_port */
	LBL_PER_TRACKER, /* struct lbl_tracker_stats; no labels */
	LBL_PER_SOURCE, /* no struct: each source knows; no labels */
	/* No structs: sources that scan know. */
	LBL_PER_OPEN, /* proxy_name, target_ip, target_port of a backend with open connections */
	LBL_PER_SCAN, /* no labels */
	/* No structs: user space knows the names of servers. */
	LBL_PER_NAME, /* a backend's labels, backend, server */
	LBL_PER_READER, /* from, place */
	LBL_PER_PAGE, /* no struct: about a tracker's part of a page with a limit; no labels */
};

/* A value: a uint64_t field of the scope's struct. */
struct lbl_sample {
	const char *label_value; /* NULL if the family has no label */
	size_t offset;
	bool of_producers; /* unknown if the producers have no counters */
};

struct lbl_family {
	const char *name; /* without _total and _info */
	const char *help;
	enum lbl_family_type type;
	enum lbl_family_scope scope;
	enum lbl_metric metric; /* of a histogram family */
	const char *label; /* distinguishes samples of one backend or tracker; may be NULL */
	bool is_sparse; /* omit samples that are 0 */
	bool in_copy; /* also of a tracker that is a copy; others are about the parent's rings */
	const struct lbl_sample *samples; /* NULL for histograms, and if there is no struct */
	size_t n_samples;
};

/* Return all families in display order, and their number in `ret_n`. */
const struct lbl_family *lbl_families(size_t *ret_n);

/* Read a sample's value. `of` is the struct of its family's scope. */
uint64_t lbl_sample_value(const struct lbl_sample *sample, const void *of);
/* Read the value of each row. */
void lbl_sample_values(const struct lbl_sample *sample, const struct lbl_snapshot *snapshot,
		       uint64_t *ret);

/* Return the unit that a family's name ends with, "seconds" or "bytes"; "" if it has none. */
const char *lbl_family_unit(const struct lbl_family *family);

/* Set `ret` to the names of a scope's labels. Returns their number. */
size_t lbl_scope_labels(enum lbl_family_scope scope, const char *const **ret);
/* cdef: end */

#endif
