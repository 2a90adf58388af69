/* SPDX-License-Identifier: MIT */
/* Read a histogram, given as `n` (slot, count) pairs in ascending order of slots. */
#ifndef LBL_HIST_READ_H
#define LBL_HIST_READ_H

#include "hist/buckets.h"

/* cdef: begin */
/* Write the cumulative count at each classic bound, without +Inf, to `ret`. */
void lbl_hist_classic(const struct lbl_buckets *buckets, size_t n, const uint16_t *slots,
		      const uint64_t *counts, uint64_t *ret);

/*
 * Return the value at rank ceil(q * count), in seconds, 0 <= q <= 1: the harmonic midpoint of its
 * bucket, with an error of at most 0.55 % from 1 us to 2^24 s. NaN for an empty histogram.
 */
double lbl_hist_percentile(const struct lbl_buckets *buckets, size_t n, const uint16_t *slots,
			   const uint64_t *counts, double q);

/*
 * Convert to native buckets of `schema`: write at most `n` bucket indexes and counts, and the count
 * of the zero bucket. Returns the number of buckets, or -EINVAL for an unsupported schema.
 */
int lbl_hist_native(const struct lbl_buckets *buckets, int schema, size_t n, const uint16_t *slots,
		    const uint64_t *counts, int32_t *ret_index, uint64_t *ret_count,
		    uint64_t *ret_zero);
/* cdef: end */

#endif
