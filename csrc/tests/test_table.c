// SPDX-License-Identifier: MIT
#include "common.h"

static void test_a_full_table_says_so(void)
{
	struct lbl_key key = { .port = 80, .proxy_ref = 1 };
	struct lbl_table table;
	uint32_t i;

	REQUIRE(!lbl_table_init(&table, 1000));
	for (i = 1; i <= 1100; i++) {
		memcpy(key.addr, &i, sizeof(i));
		CHECK(lbl_table_find(&table, &key) == 0);
		CHECK(lbl_table_insert(&table, &key, 1) == (i <= 1000 ? i : 0));
	}
	for (i = 1; i <= 1100; i++) {
		memcpy(key.addr, &i, sizeof(i));
		CHECK(lbl_table_find(&table, &key) == (i <= 1000 ? i : 0));
	}
	lbl_table_destroy(&table);
}

int main(void)
{
	RUN(test_a_full_table_says_so);
	return checks_done();
}
