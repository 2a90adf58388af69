// SPDX-License-Identifier: MIT
/* A burst has the same result as its events recorded one by one, in every implementation. */
#include "common.h"

enum { BACKENDS = 24, ROUNDS = 4000, CAPACITY = 100000 };

static uint64_t state = 0x9e3779b97f4a7c15;

static uint64_t random_below(uint64_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % n;
}

/* A record, as in a ring. */
struct record {
	uint64_t header;
	struct lbl_event event;
};

static uint32_t make_span(void)
{
	static const uint32_t odd[] = { 0, 1, LBL_SPAN_NONE - 1, LBL_SPAN_NONE };

	return random_below(4) ? (uint32_t)random_below(1 << 20) : odd[random_below(4)];
}

/* Some events have an unknown, hostile or rare value. */
static struct lbl_event make_event(bool with_ids)
{
	static const uint64_t times[] = {
		0, 1, LBL_TOP_NS, LBL_TOP_NS + 1, 1ULL << 63, UINT64_MAX - 1, UINT64_MAX
	};
	uint8_t backend = (uint8_t)(1 + random_below(BACKENDS));
	struct lbl_event event = closed_event(random_below(1ULL << random_below(60)), backend);

	event.type = random_below(4) ? LBL_CLOSED : LBL_OPENED;
	event.reason = (uint8_t)random_below(LBL_REASONS);
	event.backend_id = with_ids ? backend : 0;
	event.connect_us = make_span();
	event.first_byte_us = make_span();
	event.closing_us = make_span();
	switch (random_below(48)) {
	case 0:
		event.created_ns = times[random_below(7)];
		break;
	case 1:
		event.timestamp_ns = times[random_below(7)];
		break;
	case 2:
		((uint8_t *)&event)[random_below(8)] = (uint8_t)random_below(256);
		break;
	case 3:
		event.backend_id = (uint32_t)random_below(1ULL << 32);
		break;
	case 4: /* the overflow backend's key */
		memcpy(&event.port, &lbl_overflow_key, sizeof(lbl_overflow_key));
		break;
	case 5:
		((uint8_t *)&event)[36 + random_below(20)] ^= (uint8_t)(1 << random_below(8));
		break;
	case 6: /* IPv6 backends that differ in one bit; half of the events have LBL_FLAG_IPV4 */
		event.addr[0] = 0xfd;
		event.addr[1 + random_below(15)] ^= 1;
		event.flags = (uint8_t)random_below(2);
		break;
	}
	return event;
}

/* Connections begin at SECOND, most of them. */
static uint64_t make_horizon(void)
{
	static const uint64_t at[] = {
		0, 1, SECOND, SECOND + 1, LBL_HORIZON_ENDLESS, LBL_HORIZON_UNSET
	};

	return at[random_below(6)];
}

static struct lbl_totals scratch[2];

static void check_backend(const struct lbl_shard *a, uint32_t index_a, const struct lbl_shard *b,
			  uint32_t index_b)
{
	struct lbl_tallies tallies[2] = { 0 };
	uint32_t metric;

	lbl_shard_tallies(a, index_a, &tallies[0]);
	lbl_shard_tallies(b, index_b, &tallies[1]);
	CHECK(!memcmp(&tallies[0], &tallies[1], sizeof(tallies[0])));
	for (metric = 0; metric < LBL_METRICS; metric++) {
		if (!lbl_shard_has(a, metric))
			continue;
		lbl_totals_clear(&scratch[0]);
		lbl_totals_clear(&scratch[1]);
		lbl_bank_read(&a->banks[metric], index_a, &scratch[0]);
		lbl_bank_read(&b->banks[metric], index_b, &scratch[1]);
		CHECK(!memcmp(&scratch[0], &scratch[1], sizeof(scratch[0])));
	}
}

/* Only the overflow backend has the same index in both; other indexes depend on the order. */
static void check_equal(const struct lbl_shard *a, const struct lbl_shard *b)
{
	uint32_t i;

	CHECK(!memcmp(&a->outcomes, &b->outcomes, sizeof(a->outcomes)));
	REQUIRE(a->table.n == b->table.n);
	check_backend(a, 0, b, 0);
	for (i = 1; i < a->table.n; i++) {
		uint32_t other = lbl_table_find(&b->table, &a->table.hot[i].key);

		REQUIRE(other);
		check_backend(a, i, b, other);
	}
}

static void check_bursts(bool with_ids, bool with_all)
{
	struct lbl_shard *by_burst = make_shard(CAPACITY, with_all);
	struct lbl_shard *one_by_one = make_shard(CAPACITY, with_all);
	uint64_t total = 0;
	int round;

	lbl_shared_restart(by_burst->shared); /* an opened event sets the horizon */
	lbl_shared_restart(one_by_one->shared);
	for (round = 0; round < ROUNDS; round++) {
		uint32_t n = 1 + (uint32_t)random_below(LBL_BURST_MAX), i;
		/* Allocate the exact size, so that a sanitizer detects reads past the end. */
		struct record *records = calloc(n, sizeof(*records));

		REQUIRE(records);
		total += n;
		if (round % 16 == 15) {
			uint64_t horizon = make_horizon();

			lbl_shared_set_horizon(by_burst->shared, horizon);
			lbl_shared_set_horizon(one_by_one->shared, horizon);
		}
		for (i = 0; i < n; i++)
			records[i].event = make_event(with_ids);
		lbl_shard_record_burst(by_burst, &records[0].event, n);
		for (i = 0; i < n; i++)
			lbl_shard_record(one_by_one, &records[i].event, LBL_EVENT_BYTES);
		free(records);
	}
	CHECK(accounted(&by_burst->outcomes) && by_burst->outcomes.recorded > ROUNDS * 15);
	CHECK(by_burst->outcomes.opened > ROUNDS * 5);
	CHECK(by_burst->outcomes.malformed && kinds(&by_burst->outcomes) == total);
	CHECK(by_burst->outcomes.ignored && by_burst->outcomes.unmatched &&
	      by_burst->outcomes.rejected);
	CHECK(lbl_shared_horizon(by_burst->shared) == lbl_shared_horizon(one_by_one->shared));
	check_equal(by_burst, one_by_one);
	free_shard(by_burst);
	free_shard(one_by_one);
}

static void test_by_id(void)
{
	check_bursts(true, false);
	check_bursts(true, true);
}

static void test_by_hash(void)
{
	check_bursts(false, false);
	check_bursts(false, true);
}

static void test_by_id_without_vectors(void)
{
	bool use = lbl_use_avx512;

	lbl_use_avx512 = false;
	check_bursts(true, true);
	lbl_use_avx512 = use;
}

/* Without memory to carry into, a counter continues to its limit, and then reports the failure. */
static void test_out_of_memory(void)
{
	struct lbl_event event = closed_event(SECOND, 1);
	struct record records[LBL_BURST_MAX];
	struct lbl_shard *shard = make_shard(CAPACITY, false);
	struct lbl_totals *totals = &scratch[0];
	struct lbl_tallies tallies = { 0 };
	uint32_t i;

	for (i = 0; i < LBL_BURST_MAX; i++)
		records[i].event = event;
	lbl_shard_record(shard, &event, LBL_EVENT_BYTES);
	no_memory = true;
	for (i = 0; i < 10; i++)
		lbl_shard_record_burst(shard, &records[0].event, LBL_BURST_MAX);
	for (i = 0; i < 10; i++)
		lbl_shard_record(shard, &event, LBL_EVENT_BYTES);
	CHECK(shard->outcomes.recorded == UINT8_MAX - 1);
	CHECK(shard->outcomes.rejected == 1 + 10 * LBL_BURST_MAX + 10 - (UINT8_MAX - 1));
	no_memory = false;
	for (i = 0; i < 10; i++)
		lbl_shard_record_burst(shard, &records[0].event, LBL_BURST_MAX);
	CHECK(shard->outcomes.recorded == UINT8_MAX - 1 + 10 * LBL_BURST_MAX);
	CHECK(accounted(&shard->outcomes));
	lbl_totals_clear(totals);
	lbl_bank_read(&shard->banks[LBL_LIFETIME], 1, totals);
	lbl_tallies_read(&shard->table, 1, &tallies);
	CHECK(totals->slots[lbl_slot(shard->banks[LBL_LIFETIME].buckets, SECOND)] ==
	      shard->outcomes.recorded);
	CHECK(totals->sum == (lbl_u128)shard->outcomes.recorded * SECOND);
	CHECK(tallies.closed[LBL_REASON_FIN] == shard->outcomes.closed);
	free_shard(shard);
}

static uint64_t overflowed(const struct lbl_shard *shard)
{
	return shard->table.hot[0].counts[LBL_REASON_FIN];
}

/* Without memory for new backends, their events go to the overflow backend. */
static void test_no_memory_for_backends(void)
{
	struct lbl_shard *shard = make_shard(CAPACITY, false);
	struct lbl_event event = closed_event(SECOND, 1);
	uint64_t before;
	uint32_t i;

	no_memory = true;
	for (i = 0; i < 2000; i++) {
		memcpy(event.addr + 12, &i, sizeof(i));
		lbl_shard_record(shard, &event, LBL_EVENT_BYTES);
	}
	before = overflowed(shard);
	CHECK(before && before + shard->table.n - 1 == 2000);
	no_memory = false;
	for (i = 0; i < 2000; i++) {
		memcpy(event.addr + 12, &i, sizeof(i));
		lbl_shard_record(shard, &event, LBL_EVENT_BYTES);
	}
	CHECK(overflowed(shard) == before && shard->table.n == 2001);
	CHECK(accounted(&shard->outcomes) && shard->outcomes.closed == 4000);
	free_shard(shard);
}

/* A burst with the very key of a named VIP's backend: malformed, not the VIP's. */
static void check_vip_keys(void)
{
	static const uint8_t vip[16] = { [10] = 0xff, 0xff, 198 };
	struct lbl_decoded_event foreign = { .has_client = 1, .event = closed_event(SECOND, 0) };
	struct lbl_shard *shard = make_shard(CAPACITY, true);
	static struct record records[LBL_BURST_MAX];
	struct lbl_key key;
	uint32_t i;

	REQUIRE(!lbl_proxies_reserve_vips(&shard->proxies, 1));
	lbl_proxies_add_vip(&shard->proxies, vip, 443, 5);
	memcpy(foreign.vip_addr, vip, sizeof(vip));
	foreign.vip_port = 443;
	key = lbl_proxies_key(&shard->proxies, &foreign);
	CHECK(lbl_shard_backend(shard, &key) == 1 && shard->table.cold[1].name == 5);
	for (i = 0; i < LBL_BURST_MAX; i++) {
		records[i].event = closed_event(SECOND, i % 2);
		records[i].event.flags = 0;
		records[i].event.backend_id = 0;
		if (i % 2)
			memcpy(&records[i].event.port, &key, sizeof(key));
	}
	for (i = 0; i < 2; i++) /* the backend of the others is known the second time */
		lbl_shard_record_burst(shard, &records[0].event, LBL_BURST_MAX);
	CHECK(shard->outcomes.malformed == LBL_BURST_MAX);
	CHECK(shard->outcomes.recorded == LBL_BURST_MAX && accounted(&shard->outcomes));
	CHECK(shard->table.n == 3 && !shard->table.hot[1].counts[LBL_REASON_FIN]);
	free_shard(shard);
}

static void test_no_burst_is_taken_for_a_vip(void)
{
	bool has_avx512 = lbl_use_avx512;

	check_vip_keys();
	lbl_use_avx512 = false;
	check_vip_keys();
	lbl_use_avx512 = has_avx512;
}

#ifndef LBL_TSAN
struct flipping {
	struct record records[LBL_BURST_MAX];
	bool done;
};

static void *flip(void *arg)
{
	struct flipping *flipping = arg;
	uint32_t n = 0;

	while (!__atomic_load_n(&flipping->done, __ATOMIC_RELAXED)) {
		uint8_t *reason = &flipping->records[n % LBL_BURST_MAX].event.reason;

		__atomic_store_n(reason, n / LBL_BURST_MAX & 1 ? 255 : LBL_REASON_FIN,
				 __ATOMIC_RELAXED);
		n++;
	}
	return NULL;
}

/* A record that changes while it is read may be miscounted, but only for its own backend. */
static void test_events_that_change(void)
{
	struct lbl_shard *shard = make_shard(CAPACITY, false);
	struct lbl_event other;
	static struct flipping flipping;
	pthread_t thread;
	uint32_t i;

	for (i = 0; i < LBL_BURST_MAX; i++)
		flipping.records[i].event = closed_event(SECOND, 1);
	lbl_shard_record(shard, &flipping.records[0].event, LBL_EVENT_BYTES);
	for (i = 2; i < 100; i++) {
		other = closed_event(SECOND, (uint8_t)i);
		lbl_shard_record(shard, &other, LBL_EVENT_BYTES);
	}
	REQUIRE(!pthread_create(&thread, NULL, flip, &flipping));
	for (i = 0; i < 200000; i++)
		lbl_shard_record_burst(shard, &flipping.records[0].event, LBL_BURST_MAX);
	__atomic_store_n(&flipping.done, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	CHECK(accounted(&shard->outcomes) && shard->outcomes.recorded > 1000);
	for (i = 2; i < 100; i++) {
		other = closed_event(SECOND, (uint8_t)i);
		CHECK(lbl_table_find(&shard->table, lbl_key_of(&other)) == i);
		CHECK(shard->table.hot[i].sum == SECOND);
	}
	free_shard(shard);
}
#endif

int main(void)
{
	RUN(test_by_id);
	RUN(test_by_hash);
	RUN(test_by_id_without_vectors);
	RUN(test_out_of_memory);
	RUN(test_no_burst_is_taken_for_a_vip);
	RUN(test_no_memory_for_backends);
#ifndef LBL_TSAN /* which reports the intended race */
	RUN(test_events_that_change);
#endif
	return checks_done();
}
