/* SPDX-License-Identifier: MIT */
/* A backend's counts as exponential buckets, no finer than a schema, and not too many of them. */
#ifndef LBL_RENDER_NATIVE_H
#define LBL_RENDER_NATIVE_H

#include "hist/read.h"
#include "render/writer.h"

enum { LBL_NATIVE_BUCKETS_MAX = 160 }; /* as OpenTelemetry's default, and Prometheus' advice */

struct lbl_native {
	int schema;
	uint64_t zero_count;
	size_t n; /* buckets that have counts, in ascending order */
	int32_t index[LBL_SLOTS_MAX];
	uint64_t count[LBL_SLOTS_MAX];
};

/*
 * Use `schema`, or a coarser one if it would need more than LBL_NATIVE_BUCKETS_MAX, with the empty
 * ones in between if they are to be `dense`. Exact.
 */
void lbl_native_read(struct lbl_native *native, const struct lbl_counts *counts, int schema,
		     bool dense);

/* The sum in seconds, correctly rounded. */
double lbl_counts_sum(const struct lbl_counts *counts);

#endif
