/* SPDX-License-Identifier: MIT */
/*
 * The metric families: the only place that names one. The Collector, the README's table and every
 * renderer walk over this table.
 */
#ifndef LBL_RENDER_FAMILIES_H
#define LBL_RENDER_FAMILIES_H

#include "record/metric.h"
#include "track/snapshot.h"

/* cdef: begin */
enum lbl_family_type { LBL_COUNTER, LBL_GAUGE, LBL_HISTOGRAM };

/* What a family has samples of, which says where their values are and which labels come first. */
enum lbl_family_scope {
	LBL_PER_BACKEND, /* struct lbl_backend_snapshot; proxy_name, target_ip, target_port */
	LBL_PER_TRACKER, /* struct lbl_tracker_stats; no labels */
};

/* A value, which is a uint64_t of the scope's struct. */
struct lbl_sample {
	const char *label_value; /* of the family's label; NULL if it has none */
	size_t offset;
	bool of_producers; /* unknown unless the producers count */
};

struct lbl_family {
	const char *name; /* without _total */
	const char *help;
	enum lbl_family_type type;
	enum lbl_family_scope scope;
	enum lbl_metric metric; /* of a histogram */
	const char *label; /* that tells the samples of one backend or tracker apart, or NULL */
	bool is_sparse; /* leave out samples that are 0 */
	const struct lbl_sample *samples; /* none of a histogram */
	size_t n_samples;
};

/* All families, in the order in which they are shown. */
const struct lbl_family *lbl_families(size_t *ret_n);

/* A sample's value in the struct of its family's scope. */
uint64_t lbl_sample_value(const struct lbl_sample *sample, const void *of);

/* The names of a scope's labels. Returns how many. */
size_t lbl_scope_labels(enum lbl_family_scope scope, const char *const **ret);
/* cdef: end */

#endif
