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

/* Return the creation time; 0 if it is unknown or two could be meant. */
static uint64_t take(struct lbl_births *births, const struct lbl_decoded_event *event)
{
	uint64_t created_ns = 77;

	return lbl_births_take(births, event, &created_ns) ? created_ns : 0;
}

static void test_births_remember_and_forget(void)
{
	struct lbl_births births;
	struct lbl_decoded_event event = { .event.port = 80 };
	uint32_t i, n = 200000;

	lbl_births_init(&births);
	for (i = 0; i < n; i++) {
		set_client(&event, i * 7);
		CHECK(!insert(&births, &event, i + 1));
	}
	for (i = 0; i < n; i += 2) {
		set_client(&event, i * 7);
		CHECK(take(&births, &event) == i + 1);
		CHECK(take(&births, &event) == 0);
	}
	for (i = 1; i < n; i += 2) {
		set_client(&event, i * 7);
		CHECK(take(&births, &event) == i + 1);
	}
	CHECK(births.n == 0);
	lbl_births_destroy(&births);
}

/* Beyond the limit, each insertion evicts one entry, and no creation time is invented. */
static void test_a_full_table_evicts_one_for_one(void)
{
	struct lbl_births births;
	struct lbl_decoded_event event = { .client_port = 1 };
	uint32_t i, known = 0, most = 1 << 20, more = 1000;

	lbl_births_init(&births);
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
		created_ns = take(&births, &event);
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
	struct lbl_births births;
	int i;

	lbl_births_init(&births);
	CHECK(take(&births, &event) == 0);
	for (i = 0; i < 18; i++) {
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
		else if (i < 12)
			other.event.port ^= (uint16_t)(1 << 8 * (i - 10));
		else if (i < 16)
			other.vip_addr[i] ^= 8;
		else
			other.vip_port ^= (uint16_t)(1 << 8 * (i - 16));
		CHECK(take(&births, &other) == 0 && births.n == 1);
		CHECK(take(&births, &event) == 5 && births.n == 0);
	}
	lbl_births_destroy(&births);
}

/* Opened twice without a close between: neither time is taken, and the entry is forgotten whole. */
static void test_two_that_could_be_meant(void)
{
	struct lbl_decoded_event event = { .client_port = 40000, .event.port = 80 };
	struct lbl_births births;
	uint64_t created_ns = 77;

	lbl_births_init(&births);
	CHECK(!insert(&births, &event, 5) && !insert(&births, &event, 5)); /* came twice */
	CHECK(births.n == 1 && take(&births, &event) == 5 && births.n == 0);
	CHECK(!insert(&births, &event, 6) && !insert(&births, &event, 7));
	CHECK(!insert(&births, &event, 6) && births.n == 1);
	CHECK(lbl_births_take(&births, &event, &created_ns) && !created_ns && births.n == 0);
	CHECK(!lbl_births_take(&births, &event, &created_ns));
	CHECK(!insert(&births, &event, 8) && take(&births, &event) == 8);
	CHECK(!insert(&births, &event, 0) && births.n == 0); /* tells no time */
	CHECK(!insert(&births, &event, 9) && !insert(&births, &event, 0));
	CHECK(take(&births, &event) == 0 && births.n == 0);
	lbl_births_destroy(&births);
}

static void test_no_memory(void)
{
	struct lbl_decoded_event event = { .client_port = 1 };
	struct lbl_births births;

	lbl_births_init(&births);
	no_memory = true;
	CHECK(insert(&births, &event, 1) == -ENOMEM && take(&births, &event) == 0);
	no_memory = false;
	CHECK(insert(&births, &event, 1) == 0 && take(&births, &event) == 1);
	lbl_births_destroy(&births);
}

int main(void)
{
	RUN(test_two_that_could_be_meant);
	RUN(test_no_memory);
	RUN(test_every_part_of_the_name_counts);
	RUN(test_births_remember_and_forget);
	RUN(test_a_full_table_evicts_one_for_one);
	return checks_done();
}
