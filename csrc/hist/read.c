// SPDX-License-Identifier: MIT
/* What can be read off a histogram. */
#include <math.h>

#include "hist/read.h"

void lbl_hist_classic(const struct lbl_layout *layout, size_t n, const uint16_t *slots,
		      const uint64_t *counts, uint64_t *ret)
{
	uint64_t total = 0;
	size_t i = 0;
	uint32_t c;

	for (c = 0; c < layout->n_classic; c++) {
		for (; i < n && slots[i] <= layout->classic[c]; i++)
			total += counts[i];
		ret[c] = total;
	}
}

/* The value that is off by the same factor from either end of a bucket. */
static double middle(const struct lbl_layout *layout, uint32_t slot)
{
	double lower, upper;

	if (slot + 1 >= layout->n_slots)
		return (double)LBL_TOP_NS;
	upper = (double)layout->upper[slot];
	if (slot == 0)
		return upper / 2;
	lower = (double)layout->upper[slot - 1];
	return 2 * lower * upper / (lower + upper);
}

double lbl_hist_percentile(const struct lbl_layout *layout, size_t n, const uint16_t *slots,
			   const uint64_t *counts, double q)
{
	uint64_t total = 0, seen = 0;
	double rank;
	size_t i;

	for (i = 0; i < n; i++)
		total += counts[i];
	if (!total)
		return NAN;
	/* A hair less, lest 0.07 * 100 > 7 make the rank 8. */
	rank = ceil(q * (double)total * (1 - 4e-16));
	for (i = 0; i + 1 < n; i++) {
		seen += counts[i];
		if ((double)seen >= rank && seen)
			break;
	}
	return middle(layout, slots[i]) / 1e9;
}

int lbl_hist_native(const struct lbl_layout *layout, int schema, size_t n, const uint16_t *slots,
		    const uint64_t *counts, int32_t *ret_index, uint64_t *ret_count,
		    uint64_t *ret_zero)
{
	int shift = LBL_NATIVE_SCHEMA - schema;
	int found = 0;
	size_t i;

	if (shift < 0 || shift > 10)
		return -EINVAL;
	*ret_zero = 0;
	for (i = 0; i < n; i++) {
		int32_t index = (layout->native[slots[i]] + (1 << shift) - 1) >> shift;

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
