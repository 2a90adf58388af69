/* SPDX-License-Identifier: MIT */
/* Read a histogram, given as `n` (slot, count) pairs in ascending order of slots. */
#ifndef LBL_HIST_READ_H
#define LBL_HIST_READ_H

#include "hist/buckets.h"

/* cdef: begin */
/*
 * Check pairs from an unknown origin, and write the sum of their counts to `ret`. The functions
 * below require pairs that pass. -EINVAL if slots are not ascending or beyond the last slot, or a
 * count is 0; -ERANGE if the sum of the counts is 2^64 or more.
 */
int lbl_hist_check(const struct lbl_buckets *buckets, size_t n, const uint16_t *slots,
		   const uint64_t *counts, uint64_t *ret);

/* Write the cumulative count at each classic bound, without +Inf, to `ret`. */
void lbl_hist_classic(const struct lbl_buckets *buckets, size_t n, const uint16_t *slots,
		      const uint64_t *counts, uint64_t *ret);

/*
 * Return the value at rank ceil(q * count), in seconds, 0 <= q <= 1: the harmonic midpoint of the
 * whole ns that its slot holds. From 1 us to 2^24 s it is at most 0.55 % off: half the width of a
 * native bucket, (2^2^-6 - 1) / (2^2^-6 + 1). Below, it is at most 0.5 us off; above, it is 2^24 s.
 * NaN for an empty histogram.
 */
double lbl_hist_percentile(const struct lbl_buckets *buckets, size_t n, const uint16_t *slots,
			   const uint64_t *counts, double q);

/*
 * Convert to native buckets of `schema`: write at most `n` bucket indexes and counts, and the count
 * of the zero bucket. Exact up to 2^24 s; the last slot does not tell longer durations apart, and
 * counts as durations just above 2^24 s. Returns the number of buckets, or -EINVAL for an unsupported schema.
 */
int lbl_hist_native(const struct lbl_buckets *buckets, int schema, size_t n, const uint16_t *slots,
		    const uint64_t *counts, int32_t *ret_index, uint64_t *ret_count,
		    uint64_t *ret_zero);
/* cdef: end */

#endif
