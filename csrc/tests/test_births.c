// SPDX-License-Identifier: MIT
#include "common.h"

static void set_client(struct lbl_decoded_event *event, uint32_t client)
{
	memcpy(event->client_addr + 12, &client, sizeof(client));
}

static int insert(struct lbl_births *births, struct lbl_decoded_event *event, uint64_t created_ns)
{
	event->event.timestamp_ns = created_ns;
	return lbl_births_insert(births, event);
}

static void test_births_remember_and_forget(void)
{
	struct lbl_births births = { 0 };
	struct lbl_decoded_event event = { .event.port = 80 };
	uint32_t i, n = 200000;

	for (i = 0; i < n; i++) {
		set_client(&event, i * 7);
		CHECK(!insert(&births, &event, i + 1));
	}
	for (i = 0; i < n; i += 2) {
		set_client(&event, i * 7);
		CHECK(lbl_births_take(&births, &event) == i + 1);
		CHECK(lbl_births_take(&births, &event) == 0);
	}
	for (i = 1; i < n; i += 2) {
		set_client(&event, i * 7);
		CHECK(lbl_births_take(&births, &event) == i + 1);
	}
	CHECK(births.n == 0);
	lbl_births_destroy(&births);
}

/* Beyond the limit, each insertion evicts one entry, and no creation time is invented. */
static void test_a_full_table_evicts_one_for_one(void)
{
	struct lbl_births births = { 0 };
	struct lbl_decoded_event event = { .client_port = 1 };
	uint32_t i, known = 0, most = 1 << 20, more = 1000;

	for (i = 0; i < most; i++) {
		set_client(&event, i);
		CHECK(insert(&births, &event, i + 1) == 0);
	}
	for (; i < most + more; i++) {
		set_client(&event, i);
		CHECK(insert(&births, &event, i + 1) == 1);
		CHECK(insert(&births, &event, i + 1) == 0);
	}
	CHECK(births.n == most);
	for (i = 0; i < most + more; i++) {
		uint64_t created_ns;

		set_client(&event, i);
		created_ns = lbl_births_take(&births, &event);
		CHECK(created_ns == 0 || created_ns == i + 1);
		known += created_ns != 0;
	}
	CHECK(known == most);
	lbl_births_destroy(&births);
}

/* Connections are distinct if any part of the tuple differs. */
static void test_every_part_of_the_name_counts(void)
{
	struct lbl_decoded_event event = { .client_port = 40000, .event.port = 80 }, other;
	struct lbl_births births = { 0 };
	int i;

	CHECK(lbl_births_take(&births, &event) == 0);
	for (i = 0; i < 12; i++) {
		event.event.addr[15] = 1;
		set_client(&event, 1);
		CHECK(insert(&births, &event, 5) == 0);
		other = event;
		if (i < 4)
			other.client_addr[12 + i] ^= 8;
		else if (i < 8)
			other.event.addr[8 + i] ^= 8;
		else if (i < 10)
			other.client_port ^= (uint16_t)(1 << 8 * (i - 8));
		else
			other.event.port ^= (uint16_t)(1 << 8 * (i - 10));
		CHECK(lbl_births_take(&births, &other) == 0 && births.n == 1);
		CHECK(lbl_births_take(&births, &event) == 5 && births.n == 0);
	}
	lbl_births_destroy(&births);
}

int main(void)
{
	RUN(test_every_part_of_the_name_counts);
	RUN(test_births_remember_and_forget);
	RUN(test_a_full_table_evicts_one_for_one);
	return checks_done();
}
