// SPDX-License-Identifier: MIT
#include "common.h"

/* Fill a table to `max` backends, and beyond. The callers try values next to whole pages. */
static void check_capacity(uint32_t max)
{
	struct lbl_key key = { .port = 80, .proxy_ref = 1 };
	struct lbl_table table;
	uint32_t i;

	REQUIRE(!lbl_table_init(&table, true) && !lbl_table_reserve(&table, max));
	for (i = 1; i <= max + 100; i++) {
		memcpy(key.addr, &i, sizeof(i));
		CHECK(lbl_table_find(&table, &key) == 0);
		CHECK(lbl_table_insert(&table, &key, 1) == (i <= max ? i : 0));
	}
	for (i = 1; i <= max + 100; i++) {
		memcpy(key.addr, &i, sizeof(i));
		CHECK(lbl_table_find(&table, &key) == (i <= max ? i : 0));
	}
	lbl_table_destroy(&table);
}

static void test_a_full_table_says_so(void)
{
	check_capacity(1000);
	check_capacity(32767);
	check_capacity(32768);
}

/* Each byte of a key distinguishes backends. */
static void test_keys_that_differ_in_a_bit(void)
{
	struct lbl_key key = { .port = 80, .proxy_ref = 1 }, other;
	struct lbl_table table;
	uint32_t i;

	REQUIRE(!lbl_table_init(&table, true) && !lbl_table_reserve(&table, 1000));
	CHECK(lbl_table_insert(&table, &key, 1) == 1);
	for (i = 0; i < 8 * sizeof(key); i++) {
		other = key;
		((uint8_t *)&other)[i / 8] ^= (uint8_t)(1 << i % 8);
		CHECK(lbl_table_find(&table, &other) == 0);
		CHECK(lbl_table_insert(&table, &other, 1) == i + 2);
		CHECK(lbl_table_find(&table, &other) == i + 2);
		CHECK(lbl_table_find(&table, &key) == 1);
	}
	CHECK(lbl_table_insert(&table, &lbl_overflow_key, 1) == 0);
	lbl_table_destroy(&table);
}

int main(void)
{
	RUN(test_a_full_table_says_so);
	RUN(test_keys_that_differ_in_a_bit);
	return checks_done();
}
