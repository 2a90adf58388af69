// SPDX-License-Identifier: MIT
/* Runs of events come to what they would one by one, however they are decoded. */
#include "common.h"
#include "record/burst.h"

enum { BACKENDS = 24, ROUNDS = 4000, ROOM = 100000 };

static uint64_t state = 0x9e3779b97f4a7c15;

static uint64_t random_below(uint64_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % n;
}

/* Records as they stand in a ring. */
struct record {
	uint64_t header;
	struct lbl_event event;
};

/* Now and then something is odd: unknown, hostile, or just another kind of event. */
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
		memset(&event.port, 0xff, sizeof(event) - offsetof(struct lbl_event, port));
		break;
	case 5:
		((uint8_t *)&event)[36 + random_below(20)] ^= (uint8_t)(1 << random_below(8));
		break;
	}
	return event;
}

static struct lbl_shard *make_shard(struct lbl_buckets *buckets, struct lbl_intern *names)
{
	struct lbl_shard *shard;

	REQUIRE(!lbl_shard_new(buckets, ROOM, names, &shard));
	return shard;
}

static void check_backend(const struct lbl_shard *a, uint32_t index_a, const struct lbl_shard *b,
			  uint32_t index_b)
{
	static struct lbl_totals totals[2];

	lbl_totals_clear(&totals[0]);
	lbl_totals_clear(&totals[1]);
	lbl_table_read(&a->table, index_a, &totals[0]);
	lbl_table_read(&b->table, index_b, &totals[1]);
	CHECK(!memcmp(&totals[0], &totals[1], sizeof(totals[0])));
}

/* But for the overflow backend, what is where depends on who came first. */
static void check_equal(const struct lbl_shard *a, const struct lbl_shard *b)
{
	uint32_t i;

	CHECK(!memcmp(&a->stats, &b->stats, sizeof(a->stats)));
	REQUIRE(a->table.n == b->table.n);
	check_backend(a, 0, b, 0);
	for (i = 1; i < a->table.n; i++) {
		uint32_t other = lbl_table_find(&b->table, &a->table.hot[i].key);

		REQUIRE(other);
		check_backend(a, i, b, other);
	}
}

static void check_bursts(bool with_ids)
{
	struct lbl_buckets *buckets = make_buckets();
	struct lbl_intern *names = lbl_intern_new();
	struct lbl_shard *by_burst = make_shard(buckets, names);
	struct lbl_shard *one_by_one = make_shard(buckets, names);
	int round;

	for (round = 0; round < ROUNDS; round++) {
		uint32_t n = 1 + (uint32_t)random_below(LBL_BURST_MAX), i;
		/* Of just this size, so that a sanitizer sees what is read behind it. */
		struct record *records = calloc(n, sizeof(*records));

		REQUIRE(records);
		for (i = 0; i < n; i++)
			records[i].event = make_event(with_ids);
		lbl_shard_record_burst(by_burst, &records[0].event, n);
		for (i = 0; i < n; i++)
			lbl_shard_record(one_by_one, &records[i].event, LBL_EVENT_BYTES);
		free(records);
	}
	CHECK(accounted(&by_burst->stats) && by_burst->stats.recorded > ROUNDS * 15);
	CHECK(by_burst->stats.opened > ROUNDS * 5);
	CHECK(by_burst->stats.ignored && by_burst->stats.unmatched && by_burst->stats.rejected);
	check_equal(by_burst, one_by_one);
	lbl_shard_free(by_burst);
	lbl_shard_free(one_by_one);
	lbl_intern_free(names);
	lbl_buckets_free(buckets);
}

static void test_by_id(void)
{
	check_bursts(true);
}

static void test_by_hash(void)
{
	check_bursts(false);
}

static void test_by_id_without_vectors(void)
{
	bool use = lbl_use_avx512;

	lbl_use_avx512 = false;
	check_bursts(true);
	lbl_use_avx512 = use;
}

/* A counter that cannot carry for lack of memory goes on as long as it can, and says so then. */
static void test_out_of_memory(void)
{
	struct lbl_event event = closed_event(SECOND, 1);
	struct record records[LBL_BURST_MAX];
	struct lbl_buckets *buckets = make_buckets();
	struct lbl_intern *names = lbl_intern_new();
	struct lbl_shard *shard = make_shard(buckets, names);
	static struct lbl_totals totals;
	uint32_t i;

	for (i = 0; i < LBL_BURST_MAX; i++)
		records[i].event = event;
	lbl_shard_record(shard, &event, LBL_EVENT_BYTES);
	no_memory = true;
	for (i = 0; i < 10; i++)
		lbl_shard_record_burst(shard, &records[0].event, LBL_BURST_MAX);
	for (i = 0; i < 10; i++)
		lbl_shard_record(shard, &event, LBL_EVENT_BYTES);
	CHECK(shard->stats.recorded == UINT8_MAX - 1);
	CHECK(shard->stats.rejected == 1 + 10 * LBL_BURST_MAX + 10 - (UINT8_MAX - 1));
	no_memory = false;
	for (i = 0; i < 10; i++)
		lbl_shard_record_burst(shard, &records[0].event, LBL_BURST_MAX);
	CHECK(shard->stats.recorded == UINT8_MAX - 1 + 10 * LBL_BURST_MAX);
	CHECK(accounted(&shard->stats));
	lbl_totals_clear(&totals);
	lbl_table_read(&shard->table, 1, &totals);
	CHECK(totals.slots[lbl_slot(buckets, SECOND)] == shard->stats.recorded);
	CHECK(totals.sum == (lbl_u128)shard->stats.recorded * SECOND);
	CHECK(totals.closed[LBL_REASON_FIN] == shard->stats.closed);
	lbl_shard_free(shard);
	lbl_intern_free(names);
	lbl_buckets_free(buckets);
}

static uint64_t overflowed(const struct lbl_shard *shard)
{
	return shard->table.hot[0].counts[LBL_REASON_FIN];
}

/* Backends that there is no memory for are the overflow backend's, until there is some. */
static void test_no_memory_for_backends(void)
{
	struct lbl_buckets *buckets = make_buckets();
	struct lbl_intern *names = lbl_intern_new();
	struct lbl_shard *shard = make_shard(buckets, names);
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
	CHECK(accounted(&shard->stats) && shard->stats.closed == 4000);
	lbl_shard_free(shard);
	lbl_intern_free(names);
	lbl_buckets_free(buckets);
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

/* What is in the ring may change while it is read: then counts are wrong, but of their backend. */
static void test_events_that_change(void)
{
	struct lbl_buckets *buckets = make_buckets();
	struct lbl_intern *names = lbl_intern_new();
	struct lbl_shard *shard = make_shard(buckets, names);
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
	CHECK(accounted(&shard->stats) && shard->stats.recorded > 1000);
	for (i = 2; i < 100; i++) {
		other = closed_event(SECOND, (uint8_t)i);
		CHECK(lbl_table_find(&shard->table, lbl_key_of(&other)) == i);
		CHECK(shard->table.hot[i].sum == SECOND);
	}
	lbl_shard_free(shard);
	lbl_intern_free(names);
	lbl_buckets_free(buckets);
}
#endif

int main(void)
{
	RUN(test_by_id);
	RUN(test_by_hash);
	RUN(test_by_id_without_vectors);
	RUN(test_out_of_memory);
	RUN(test_no_memory_for_backends);
#ifndef LBL_TSAN /* to which such a change is an error */
	RUN(test_events_that_change);
#endif
	return checks_done();
}
