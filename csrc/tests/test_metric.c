// SPDX-License-Identifier: MIT
/* The latencies, and their values in a closed event. */
#include "common.h"

static void test_each_has_a_name(void)
{
	static const char *const names[] = { "lifetime", "connect", "first_byte", "active" };
	uint32_t metric;

	for (metric = 0; metric < LBL_METRICS; metric++) {
		const struct lbl_metric_info *info = lbl_metric_info(metric);

		REQUIRE(info);
		CHECK(!strcmp(info->name, names[metric]));
		CHECK(info->is_short == (metric == LBL_CONNECT || metric == LBL_FIRST_BYTE));
	}
	CHECK(!lbl_metric_info(LBL_METRICS));
}

/* 0 means not measured; LBL_SPAN_NONE means that the end never came. */
static void test_short_times(void)
{
	static const uint32_t us[] = { 0, 1, 2, 1000000, LBL_SPAN_NONE - 1, LBL_SPAN_NONE };
	struct lbl_event event;
	size_t i;

	for (i = 0; i < sizeof(us) / sizeof(us[0]); i++) {
		bool measured = us[i] && us[i] != LBL_SPAN_NONE;
		uint64_t ns = us[i] * 1000ULL;

		event = closed_event(SECOND, 1);
		CHECK(lbl_latency_ns(LBL_CONNECT, &event, SECOND) == LBL_NOT_MEASURED);
		CHECK(lbl_latency_ns(LBL_FIRST_BYTE, &event, SECOND) == LBL_NOT_MEASURED);
		CHECK(lbl_latency_ns(LBL_ACTIVE, &event, SECOND) == LBL_NOT_MEASURED);
		event.connect_us = us[i];
		CHECK(lbl_latency_ns(LBL_CONNECT, &event, SECOND) ==
		      (measured ? ns : LBL_NOT_MEASURED));
		CHECK(lbl_latency_ns(LBL_CONNECT, &event, LBL_NOT_MEASURED) ==
		      (measured ? ns : LBL_NOT_MEASURED));
		event.first_byte_us = us[i];
		CHECK(lbl_latency_ns(LBL_FIRST_BYTE, &event, SECOND) ==
		      (measured ? ns : LBL_NOT_MEASURED));
		event.closing_us = us[i];
		CHECK(lbl_latency_ns(LBL_ACTIVE, &event, 1ULL << 50) ==
		      (measured ? (1ULL << 50) - ns : LBL_NOT_MEASURED));
		CHECK(lbl_latency_ns(LBL_ACTIVE, &event, LBL_NOT_MEASURED) == LBL_NOT_MEASURED);
		CHECK(lbl_latency_ns(LBL_ACTIVE, &event, ns) == (measured ? 0 : LBL_NOT_MEASURED));
		CHECK(!measured || lbl_latency_ns(LBL_ACTIVE, &event, ns - 1) == LBL_NOT_MEASURED);
		CHECK(lbl_latency_ns(LBL_LIFETIME, &event, i) == i);
	}
}

int main(void)
{
	RUN(test_each_has_a_name);
	RUN(test_short_times);
	return checks_done();
}
