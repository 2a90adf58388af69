// SPDX-License-Identifier: MIT
/* The slot of each duration, and the valid bounds. */
#include "common.h"

static struct lbl_buckets *buckets;

static int make(const uint64_t *bounds, size_t n)
{
	return lbl_buckets_new(bounds, n, &buckets);
}

/* Bounds ascend; each slot ends at its bound, and the next slot begins 1 ns later. */
static void check_slots(void)
{
	uint32_t n = lbl_buckets_slots(buckets), slot;

	CHECK(lbl_buckets_slot(buckets, 0) == 0 && lbl_buckets_slot(buckets, 1) == 0);
	for (slot = 0; slot + 1 < n; slot++) {
		uint64_t upper = lbl_buckets_upper(buckets, slot);

		CHECK(lbl_buckets_slot(buckets, upper) == slot);
		CHECK(lbl_buckets_slot(buckets, upper + 1) == slot + 1);
		CHECK(slot + 2 == n || lbl_buckets_upper(buckets, slot + 1) > upper);
	}
	CHECK(lbl_buckets_upper(buckets, n - 2) == LBL_TOP_NS);
	CHECK(lbl_buckets_upper(buckets, n - 1) == UINT64_MAX);
	CHECK(lbl_buckets_upper(buckets, n) == UINT64_MAX);
	CHECK(lbl_buckets_slot(buckets, UINT64_MAX) == n - 1);
}

static void test_native_bounds_alone(void)
{
	REQUIRE(!make(NULL, 0));
	CHECK(lbl_buckets_slots(buckets) == LBL_NATIVE_BOUNDS + 1);
	CHECK(lbl_buckets_upper(buckets, 0) == 953); /* 2^-20 s */
	CHECK(lbl_buckets_upper(buckets, 20 * 64) == SECOND);
	CHECK(lbl_buckets_upper(buckets, 20 * 64 + 1) == 1010889286); /* 2^(1/64) s */
	CHECK(lbl_buckets_upper(buckets, 20 * 64 - 32) == 707106781); /* 2^-0.5 s */
	check_slots();
	lbl_buckets_free(buckets);
}

/* A slot ends at each classic bound; a native bound with the same value shares the slot. */
static void test_classic_bounds_are_merged_in(void)
{
	static const uint64_t bounds[] = { 1000, 5000000, SECOND, 10 * SECOND, LBL_TOP_NS };
	size_t i;

	REQUIRE(!make(bounds, 5));
	CHECK(lbl_buckets_slots(buckets) == LBL_NATIVE_BOUNDS + 1 + 3);
	for (i = 0; i < 5; i++) {
		uint32_t slot = lbl_buckets_slot(buckets, bounds[i]);

		CHECK(lbl_buckets_upper(buckets, slot) == bounds[i]);
		CHECK(buckets->classic[i] == slot);
	}
	check_slots();
	lbl_buckets_free(buckets);
}

static void test_as_many_as_there_may_be(void)
{
	static uint64_t bounds[LBL_CLASSIC_MAX + 1];
	size_t i;

	bounds[0] = SECOND + 1;
	for (i = 1; i <= LBL_CLASSIC_MAX; i++)
		bounds[i] = bounds[i - 1] + bounds[i - 1] / 64;
	REQUIRE(!make(bounds, LBL_CLASSIC_MAX));
	check_slots();
	lbl_buckets_free(buckets);
	CHECK(make(bounds, LBL_CLASSIC_MAX + 1) == -EINVAL);
}

static void test_bad_bounds(void)
{
	static const struct {
		uint64_t bounds[3];
		size_t n;
		int err;
	} cases[] = {
		{ { LBL_CLASSIC_MIN_NS - 1 }, 1, -EINVAL },
		{ { LBL_TOP_NS + 1 }, 1, -EINVAL },
		{ { SECOND, LBL_TOP_NS + 1 }, 2, -EINVAL },
		{ { SECOND, SECOND }, 2, -EINVAL },
		{ { SECOND, SECOND - 1 }, 2, -EINVAL },
		{ { SECOND + 1, SECOND + 2, SECOND + 3 }, 3, -ERANGE },
	};
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		CHECK(make(cases[i].bounds, cases[i].n) == cases[i].err);
	no_memory = true;
	CHECK(make(NULL, 0) == -ENOMEM);
	no_memory = false;
	lbl_buckets_free(NULL);
}

int main(void)
{
	RUN(test_native_bounds_alone);
	RUN(test_classic_bounds_are_merged_in);
	RUN(test_as_many_as_there_may_be);
	RUN(test_bad_bounds);
	return checks_done();
}
