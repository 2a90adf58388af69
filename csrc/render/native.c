// SPDX-License-Identifier: MIT
#include "render/native.h"
#include "render/number.h"

/* Two buckets of a schema are one of the next coarser one: (i + 1) >> 1 is the index there. */
static void coarsen(struct lbl_native *native)
{
	size_t i, n = 0;

	for (i = 0; i < native->n; i++) {
		int32_t index = (native->index[i] + 1) >> 1;

		if (n && native->index[n - 1] == index) {
			native->count[n - 1] += native->count[i];
		} else {
			native->index[n] = index;
			native->count[n++] = native->count[i];
		}
	}
	native->n = n;
	native->schema--;
}

static int64_t width(const struct lbl_native *native, bool dense)
{
	if (!dense || !native->n)
		return (int64_t)native->n;
	return native->index[native->n - 1] - native->index[0] + 1;
}

void lbl_native_read(struct lbl_native *native, const struct lbl_counts *counts, int schema,
		     bool dense)
{
	native->schema = schema;
	native->n = (size_t)lbl_hist_native(counts->buckets, schema, counts->row->n, counts->slots,
					    counts->counts, native->index, native->count,
					    &native->zero_count);
	while (width(native, dense) > LBL_NATIVE_BUCKETS_MAX)
		coarsen(native);
}

double lbl_counts_sum(const struct lbl_counts *counts)
{
	return lbl_seconds((lbl_u128)counts->row->sum_hi << 64 | counts->row->sum_lo);
}
