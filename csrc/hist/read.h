/* SPDX-License-Identifier: MIT */
/* What can be read off a histogram given as `n` (slot, count) pairs, slots ascending. */
#ifndef LBL_HIST_READ_H
#define LBL_HIST_READ_H

#include "hist/buckets.h"

/* cdef: begin */
/* Cumulative counts at the classic bounds, one each, +Inf not included. */
void lbl_hist_classic(const struct lbl_buckets *buckets, size_t n, const uint16_t *slots,
		      const uint64_t *counts, uint64_t *ret);

/*
 * The value at rank ceil(q * count), seconds, 0 <= q <= 1: the harmonic middle of its bucket, so
 * at most 0.55 % off between 1 us and 2^24 s. NaN for an empty histogram.
 */
double lbl_hist_percentile(const struct lbl_buckets *buckets, size_t n, const uint16_t *slots,
			   const uint64_t *counts, double q);

/*
 * Native histogram buckets of `schema` (-EINVAL for one that cannot be): indexes and counts of at
 * most `n` buckets, and the count of the zero bucket. Returns how many there are.
 */
int lbl_hist_native(const struct lbl_buckets *buckets, int schema, size_t n, const uint16_t *slots,
		    const uint64_t *counts, int32_t *ret_index, uint64_t *ret_count,
		    uint64_t *ret_zero);
/* cdef: end */

#endif
