// SPDX-License-Identifier: MIT
#include <math.h>

#include "hist/read.h"

int lbl_hist_check(const struct lbl_buckets *buckets, size_t n, const uint16_t *slots,
		   const uint64_t *counts, uint64_t *ret)
{
	uint64_t total = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		if (slots[i] >= buckets->n_slots || !counts[i])
			return -EINVAL;
		if (i && slots[i] <= slots[i - 1])
			return -EINVAL;
		if (__builtin_add_overflow(total, counts[i], &total))
			return -ERANGE;
	}
	*ret = total;
	return 0;
}

void lbl_hist_classic(const struct lbl_buckets *buckets, size_t n, const uint16_t *slots,
		      const uint64_t *counts, uint64_t *ret)
{
	uint64_t total = 0;
	size_t i = 0;
	uint32_t c;

	for (c = 0; c < buckets->n_classic; c++) {
		for (; i < n && slots[i] <= buckets->classic[c]; i++)
			total += counts[i];
		ret[c] = total;
	}
}

/*
 * Of the whole ns that a slot holds. The harmonic midpoint has the same relative error at both ends;
 * the first slot begins at 0, so it has the usual midpoint.
 */
static double midpoint(const struct lbl_buckets *buckets, uint32_t slot)
{
	double first, last;

	if (slot + 1 >= buckets->n_slots)
		return (double)LBL_TOP_NS;
	last = (double)buckets->upper[slot];
	if (slot == 0)
		return last / 2;
	first = (double)(buckets->upper[slot - 1] + 1);
	return 2 * first * last / (first + last);
}

double lbl_hist_percentile(const struct lbl_buckets *buckets, size_t n, const uint16_t *slots,
			   const uint64_t *counts, double q)
{
	uint64_t total = 0, seen = 0;
	double rank;
	size_t i;

	for (i = 0; i < n; i++)
		total += counts[i];
	if (!total)
		return NAN;
	/* Round down by 4e-16 so that 0.07 * 100 does not become rank 8. */
	rank = ceil(q * (double)total * (1 - 4e-16));
	for (i = 0; i + 1 < n; i++) {
		seen += counts[i];
		if ((double)seen >= rank && seen)
			break;
	}
	return midpoint(buckets, slots[i]) / 1e9;
}

int lbl_hist_native(const struct lbl_buckets *buckets, int schema, size_t n, const uint16_t *slots,
		    const uint64_t *counts, int32_t *ret_index, uint64_t *ret_count,
		    uint64_t *ret_zero)
{
	int shift = LBL_NATIVE_SCHEMA - schema;
	int found = 0;
	size_t i;

	if (schema < LBL_NATIVE_SCHEMA_MIN || schema > LBL_NATIVE_SCHEMA)
		return -EINVAL;
	*ret_zero = 0;
	for (i = 0; i < n; i++) {
		int32_t index = (buckets->native[slots[i]] + (1 << shift) - 1) >> shift;

		if (slots[i] == 0) {
			*ret_zero += counts[i];
		} else if (found && ret_index[found - 1] == index) {
			ret_count[found - 1] += counts[i];
		} else {
			ret_index[found] = index;
			ret_count[found++] = counts[i];
		}
	}
	return found;
}
