// SPDX-License-Identifier: MIT
/* Percentiles, classic and native buckets of histograms. */
#include <math.h>

#include "common.h"
#include "hist/read.h"

static struct lbl_buckets *buckets;
static uint16_t slots[LBL_SLOTS_MAX];
static uint64_t counts[LBL_SLOTS_MAX];

/* Ascending counts, so that no two slots have the same. */
static size_t fill_all(void)
{
	uint32_t n = lbl_buckets_slots(buckets), i;

	for (i = 0; i < n; i++) {
		slots[i] = (uint16_t)i;
		counts[i] = i + 1;
	}
	return n;
}

/* A native bucket ends at 2^(index / 2^schema) s, and begins where the previous one ends. */
static long double native_bound_ns(int schema, int32_t index)
{
	return 1e9L * powl(2, ldexpl(index, -schema));
}

static void check_schema(int schema)
{
	static uint64_t native[LBL_SLOTS_MAX];
	static int32_t index[LBL_SLOTS_MAX];
	uint64_t zero, total = 0;
	size_t n = fill_all(), i;
	int found, k = 0;

	found = lbl_hist_native(buckets, schema, n, slots, counts, index, native, &zero);
	REQUIRE(found > 0);
	CHECK(zero == counts[0]);
	for (i = 1; i + 1 < n; i++) {
		long double upper = (long double)lbl_buckets_upper(buckets, (uint32_t)i);
		long double lower = (long double)lbl_buckets_upper(buckets, (uint32_t)i - 1) + 1;

		if (upper > native_bound_ns(schema, index[k]))
			k++;
		REQUIRE(k < found);
		CHECK(upper <= native_bound_ns(schema, index[k]));
		CHECK(lower > native_bound_ns(schema, index[k] - 1));
		native[k] -= counts[i];
	}
	native[found - 1] -= counts[n - 1];
	for (k = 0; k < found; k++) {
		CHECK(k == 0 || index[k] > index[k - 1]);
		total |= native[k];
	}
	CHECK(total == 0);
}

static void test_every_native_schema(void)
{
	uint64_t count, zero;
	int32_t index;
	int schema;

	buckets = make_buckets();
	for (schema = LBL_NATIVE_SCHEMA_MIN; schema <= LBL_NATIVE_SCHEMA; schema++)
		check_schema(schema);
	CHECK(lbl_hist_native(buckets, LBL_NATIVE_SCHEMA_MIN - 1, 0, slots, counts, &index, &count,
			      &zero) == -EINVAL);
	CHECK(lbl_hist_native(buckets, LBL_NATIVE_SCHEMA + 1, 0, slots, counts, &index, &count,
			      &zero) == -EINVAL);
	zero = 1;
	CHECK(lbl_hist_native(buckets, 0, 0, slots, counts, &index, &count, &zero) == 0 && !zero);
	lbl_buckets_free(buckets);
}

static uint16_t slot_of(uint64_t ns)
{
	return (uint16_t)lbl_buckets_slot(buckets, ns);
}

static void test_classic_counts_are_cumulative(void)
{
	uint64_t ret[4] = { [3] = 77 };
	size_t i;

	buckets = make_buckets(); /* 1 ms, 1 s, 1 h */
	slots[0] = slot_of(SECOND / 1000);
	slots[1] = slot_of(SECOND / 1000 + 1);
	slots[2] = slot_of(SECOND);
	slots[3] = slot_of(3601 * SECOND);
	for (i = 0; i < 4; i++)
		counts[i] = 1ULL << (8 * i);
	lbl_hist_classic(buckets, 4, slots, counts, ret);
	CHECK(ret[0] == 0x1 && ret[1] == 0x10101 && ret[2] == 0x10101 && ret[3] == 77);
	lbl_hist_classic(buckets, 1, slots, counts, ret);
	CHECK(ret[0] == 1 && ret[1] == 1 && ret[2] == 1);
	lbl_hist_classic(buckets, 0, slots, counts, ret);
	CHECK(ret[0] == 0 && ret[1] == 0 && ret[2] == 0);
	lbl_buckets_free(buckets);
}

/* Within 0.5 % of the observation at the rank. */
static bool is_about(double seconds, double expected)
{
	return fabs(seconds / expected - 1) < 0.0055;
}

static double percentile(size_t n, double q)
{
	return lbl_hist_percentile(buckets, n, slots, counts, q);
}

static void test_percentiles(void)
{
	int i;

	buckets = make_buckets();
	CHECK(isnan(percentile(0, 0.5)));
	for (i = 0; i < 100; i++) { /* 1 s to 100 s */
		slots[i] = slot_of((uint64_t)(i + 1) * SECOND);
		counts[i] = 1;
	}
	for (i = 1; i <= 100; i++)
		CHECK(is_about(percentile(100, i / 100.0), i));
	CHECK(is_about(percentile(100, 0), 1) && is_about(percentile(100, 0.001), 1));
	CHECK(is_about(percentile(100, 0.5001), 51));
	counts[0] = 0;
	CHECK(is_about(percentile(100, 0), 2) && isnan(percentile(1, 0.5)));
	counts[1] = 1000;
	CHECK(is_about(percentile(100, 0.9), 2) && is_about(percentile(100, 1), 100));
	lbl_buckets_free(buckets);
}

/* The first bucket begins at 0; the last one is unbounded. */
static void test_percentiles_at_the_ends(void)
{
	uint32_t n;

	buckets = make_buckets();
	n = lbl_buckets_slots(buckets);
	counts[0] = 1;
	slots[0] = 0;
	CHECK(percentile(1, 0.5) == (double)lbl_buckets_upper(buckets, 0) / 2 / 1e9);
	slots[0] = (uint16_t)(n - 1);
	CHECK(percentile(1, 0.5) == (double)LBL_TOP_NS / 1e9);
	slots[0] = (uint16_t)(n - 2);
	CHECK(is_about(percentile(1, 0.5), (double)LBL_TOP_NS / 1e9));
	CHECK(percentile(1, 0.5) < (double)LBL_TOP_NS / 1e9);
	lbl_buckets_free(buckets);
}

/* In every slot, the first and the last whole ns are equally far from what is read, in percent. */
static void test_a_percentile_is_in_the_middle_of_its_slot(void)
{
	uint32_t n, i;

	buckets = make_buckets();
	n = lbl_buckets_slots(buckets);
	counts[0] = 1;
	for (i = 1; i + 1 < n; i++) {
		long double first = (long double)lbl_buckets_upper(buckets, i - 1) + 1;
		long double last = (long double)lbl_buckets_upper(buckets, i), found;

		slots[0] = (uint16_t)i;
		found = percentile(1, 0.5) * 1e9L;
		CHECK(fabsl((found - first) / first - (last - found) / last) < 1e-12L);
		CHECK((last - found) / last < 0.0055L);
	}
	lbl_buckets_free(buckets);
}

static int checked(size_t n)
{
	uint64_t total = 77;
	int err = lbl_hist_check(buckets, n, slots, counts, &total);
	size_t i;

	for (i = 0; i < n && !err; i++)
		total -= counts[i];
	CHECK(err ? total == 77 : total == 0);
	return err;
}

/* Each kind of pair that no histogram has, at each place. */
static void test_pairs_are_checked(void)
{
	size_t n, i;

	buckets = make_buckets();
	CHECK(lbl_hist_check(buckets, 0, NULL, NULL, &counts[0]) == 0 && counts[0] == 0);
	n = fill_all();
	CHECK(checked(n) == 0);
	for (i = 0; i < n; i++) {
		counts[i] = 0;
		CHECK(checked(n) == -EINVAL && checked(i) == 0);
		counts[i] = UINT64_MAX;
		CHECK(checked(n) == -ERANGE && checked(i + 1) == (i ? -ERANGE : 0));
		counts[i] = i + 1;
		slots[i] = (uint16_t)(i + 1);
		CHECK(checked(n) == -EINVAL && checked(i) == 0);
		slots[i] = (uint16_t)i;
	}
	for (i = n; i <= UINT16_MAX; i++) {
		slots[0] = (uint16_t)i;
		CHECK(checked(1) == -EINVAL);
	}
	lbl_buckets_free(buckets);
}

int main(void)
{
	RUN(test_a_percentile_is_in_the_middle_of_its_slot);
	RUN(test_pairs_are_checked);
	RUN(test_every_native_schema);
	RUN(test_classic_counts_are_cumulative);
	RUN(test_percentiles);
	RUN(test_percentiles_at_the_ends);
	return checks_done();
}
