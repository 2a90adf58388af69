// SPDX-License-Identifier: MIT
/* Backends go and their rows are used again: no guess, by id or by hash, leads to the wrong one. */
#include "common.h"
#include "track/expiry.h"
#include "track/removal.h"

enum { BACKENDS = 500 };

static struct lbl_totals scratch;

static struct lbl_key key_of(uint32_t number)
{
	struct lbl_key key = { .port = 80, .proxy_ref = 1 };

	memcpy(key.addr, &number, sizeof(number));
	return key;
}

static uint32_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005 + 1442695040888963407;
	return (uint32_t)(*state >> 33);
}

/* Find all and no others. A guess that finds nothing would mean that a backend is unknown. */
static void check_table(const struct lbl_table *table, const uint32_t *index_of)
{
	uint32_t i;

	for (i = 0; i < BACKENDS; i++) {
		struct lbl_key key = key_of(i);

		CHECK(lbl_table_find(table, &key) == index_of[i]);
		CHECK(!index_of[i] || lbl_table_guess(table, lbl_table_hash(table, &key)));
	}
}

/* Random insertions and removals, compared with an array. Rows are used again before new ones. */
static void test_the_table_equals_an_array(void)
{
	uint32_t index_of[BACKENDS] = { 0 }, in_use = 0, most = 0, step;
	uint64_t random = 1;
	struct lbl_table table;

	REQUIRE(!lbl_table_init(&table, true) && !lbl_table_reserve(&table, BACKENDS));
	for (step = 0; step < 20000; step++) {
		uint32_t number = next_random(&random) % BACKENDS;
		struct lbl_key key = key_of(number);

		if (index_of[number]) {
			lbl_table_unlink(&table, index_of[number]);
			CHECK(!lbl_table_forget_ids(&table, 0));
			lbl_table_free(&table);
			CHECK(!table.unlinked);
			index_of[number] = 0;
			in_use--;
		} else {
			index_of[number] = lbl_table_insert(&table, &key, 1);
			CHECK(index_of[number]);
			most = ++in_use > most ? in_use : most;
		}
		CHECK(table.n == most + 1);
		if (step % 100 == 0)
			check_table(&table, index_of);
	}
	lbl_table_destroy(&table);
}

/* A row without a backend is not found, also if the hash grew before it was free. */
static void test_the_hash_grows_during_a_removal(void)
{
	struct lbl_table table;
	uint32_t i;

	REQUIRE(!lbl_table_init(&table, true) && !lbl_table_reserve(&table, BACKENDS));
	for (i = 0; i < BACKENDS; i++) {
		struct lbl_key key = key_of(i);

		CHECK(lbl_table_insert(&table, &key, 1) == i + 1);
		if (i == 0)
			lbl_table_unlink(&table, 1);
		CHECK(lbl_table_find(&table, &lbl_overflow_key) == 0);
	}
	lbl_table_destroy(&table);
}

static uint64_t counted(const struct lbl_shard *shard, uint32_t index)
{
	uint64_t n = 0;
	uint32_t i;

	lbl_totals_clear(&scratch);
	lbl_bank_read(&shard->banks[LBL_LIFETIME], index, &scratch);
	for (i = scratch.first; i < scratch.end; i++)
		n += scratch.slots[i];
	return n;
}

static uint32_t index_of(const struct lbl_shard *shard, const struct lbl_event *event)
{
	return lbl_table_find(&shard->table, lbl_key_of(event));
}

/* The event of no backend: its key is the overflow backend's, and that of rows without one. */
static struct lbl_event nobodys_event(uint32_t id)
{
	struct lbl_event event = closed_event(SECOND, 0);

	event.backend_id = id;
	memcpy(&event.port, &lbl_overflow_key, sizeof(lbl_overflow_key));
	return event;
}

/* One step of a removal after the other, with events in between that try to reach the row. */
static void test_events_during_a_removal(void)
{
	enum { FAR = LBL_IDS_MAX - 1 };
	struct lbl_event event = closed_event(SECOND, 1), nobody = nobodys_event(FAR);
	struct lbl_shard *shard = make_shard(10, false), *removed = make_shard(0, false);
	uint32_t at, slices = 0;

	event.backend_id = FAR;
	lbl_shard_record_burst(shard, &event, 1);
	lbl_shard_record_burst(shard, &event, 1);
	CHECK(index_of(shard, &event) == 1 && counted(shard, 1) == 2);
	lbl_shard_unlink(shard, 1);
	lbl_shard_record_burst(shard, &nobody, 1); /* may still reach the row, and is not lost */
	lbl_shard_record_burst(shard, &event, 1);
	CHECK(index_of(shard, &event) == 2 && counted(shard, 2) == 1);
	for (at = 0; (at = lbl_table_forget_ids(&shard->table, at)); slices++)
		lbl_shard_record_burst(shard, &event, 1);
	CHECK(slices > 10 && counted(shard, 2) == 1 + slices);
	CHECK(lbl_shard_free_one(shard, removed, &scratch));
	CHECK(!lbl_shard_free_one(shard, removed, &scratch));
	CHECK(counted(removed, 0) + counted(shard, 0) == 3);

	lbl_shard_record_burst(shard, &nobody, 1);
	lbl_shard_record_burst(shard, &nobody, 1);
	CHECK(counted(shard, 1) == 0 && counted(removed, 0) + counted(shard, 0) == 5);
	event.addr[15] = 7;
	lbl_shard_record_burst(shard, &event, 1);
	CHECK(index_of(shard, &event) == 1 && counted(shard, 1) == 1);
	CHECK(shard->table.n == 3 && accounted(&shard->outcomes));
	free_shard(removed);
	free_shard(shard);
}

/* Ids that lead to a row that went reach nobody, whatever takes the row. */
static void test_a_stale_id(void)
{
	struct lbl_shard *shard = make_shard(1, false), *removed = make_shard(0, false);
	struct lbl_event one = closed_event(SECOND, 1), two = closed_event(SECOND, 2);
	struct lbl_event nobody = nobodys_event(1);

	lbl_shard_record_burst(shard, &one, 1);
	lbl_shard_unlink(shard, 1);
	CHECK(!lbl_table_forget_ids(&shard->table, 0));
	CHECK(lbl_shard_free_one(shard, removed, &scratch));
	lbl_shard_record_burst(shard, &nobody, 1);
	CHECK(counted(shard, 0) == 1 && counted(shard, 1) == 0 && counted(removed, 0) == 1);
	lbl_shard_record_burst(shard, &two, 1);
	lbl_shard_record_burst(shard, &one, 1); /* no room */
	CHECK(index_of(shard, &two) == 1 && counted(shard, 1) == 1 && counted(shard, 0) == 2);
	free_shard(removed);
	free_shard(shard);
}

/* ---- backends of the program ---- */

static struct lbl_backend *backend_of(struct lbl_tracker *tracker, uint32_t number)
{
	struct lbl_key key = key_of(number);
	struct lbl_backend *backend;

	REQUIRE(!lbl_tracker_backend(tracker, LBL_CONNECT, 1, key.addr, 80, &backend));
	return backend;
}

static uint64_t count_of(struct lbl_tracker *tracker, uint32_t number)
{
	struct lbl_key key = key_of(number);
	struct lbl_snapshot *snapshot;
	uint64_t n;

	REQUIRE(!lbl_tracker_snapshot_one(tracker, LBL_CONNECT, 1, key.addr, 80, &snapshot));
	n = snapshot->n_rows ? snapshot->rows[0].count : 0;
	lbl_snapshot_free(snapshot);
	return n;
}

static int remove_it(struct lbl_tracker *tracker, uint32_t number)
{
	struct lbl_key key = key_of(number);

	return lbl_tracker_remove(tracker, 1, key.addr, 80);
}

/* All latencies of all backends move as the own shard grows; memory may be exhausted meanwhile. */
static void test_growing_by_hand(void)
{
	struct lbl_tracker *tracker = make_tracker(BACKENDS, true);
	struct lbl_backend *backends[BACKENDS + 1];
	uint32_t i, round;

	for (i = 0; i <= BACKENDS; i++) {
		no_memory = i == 17 || i == 100;
		backends[i] = backend_of(tracker, i);
		CHECK(!lbl_backend_observe(backends[i], 1));
		no_memory = false;
	}
	for (round = 0; round < 200; round++) {
		for (i = 0; i <= BACKENDS; i++)
			CHECK(!lbl_backend_observe(backends[i], 1));
	}
	for (i = 0; i < BACKENDS; i++)
		CHECK(count_of(tracker, i) >= 200);
	CHECK(count_of(tracker, BACKENDS) == 0 && tracker->own->n_by_hand == BACKENDS);
	CHECK(lbl_backend_try_observe(backends[BACKENDS], 1) == -EBUSY);
	CHECK(remove_it(tracker, 0) == 1 && tracker->own->n_by_hand == BACKENDS - 1);
	CHECK(remove_it(tracker, 0) == 0 && remove_it(tracker, BACKENDS) == 0);
	CHECK(!lbl_backend_observe(backends[BACKENDS], 1) && count_of(tracker, BACKENDS) == 1);
	CHECK(!lbl_backend_try_observe(backends[BACKENDS], 1));
	for (i = 0; i <= BACKENDS; i++)
		lbl_backend_free(backends[i]);
	lbl_tracker_free(tracker);
}

/* What streams left takes no place of the program's, and is not the program's when it goes. */
static void test_places_by_hand(void)
{
	struct lbl_tracker *tracker = make_tracker(2, true);
	struct lbl_stream *stream;
	struct lbl_backend *backend;
	uint32_t i;

	REQUIRE(!lbl_stream_memory(4096, &stream));
	for (i = 0; i < 4; i++) {
		struct lbl_event event = closed_event(SECOND, (uint8_t)(i + 1));

		REQUIRE(!start_on(tracker, &stream, 1, "web"));
		REQUIRE(!lbl_stream_produce(stream, &event, sizeof(event)));
		lbl_tracker_stop(tracker);
	}
	CHECK(tracker->own->table.n == 5 && tracker->own->n_by_hand == 0);
	for (i = 0; i < 3; i++) {
		backend = backend_of(tracker, i);
		CHECK(!lbl_backend_observe(backend, 1));
		lbl_backend_free(backend);
	}
	CHECK(tracker->own->table.n == 7 && tracker->own->n_by_hand == 2);
	lbl_tracker_reset(tracker);
	CHECK(tracker->own->n_by_hand == 0);
	for (i = 10; i < 16; i++) {
		backend = backend_of(tracker, i);
		lbl_backend_free(backend);
	}
	CHECK(tracker->own->table.n == 7 && tracker->own->n_by_hand == 2);
	lbl_tracker_free(tracker);
	lbl_stream_free(stream);
}

static void test_what_expiry_takes(void)
{
	struct lbl_tracker *tracker = make_tracker(2, true);

	lbl_expiry_stop(tracker);
	CHECK(lbl_tracker_expire(tracker, 0) == -EINVAL && !lbl_expiry_is_due(tracker));
	CHECK(!lbl_tracker_expire(tracker, UINT64_MAX) && !lbl_expiry_is_due(tracker));
	lbl_tracker_free(tracker);
}

int main(void)
{
	RUN(test_the_table_equals_an_array);
	RUN(test_the_hash_grows_during_a_removal);
	RUN(test_events_during_a_removal);
	RUN(test_a_stale_id);
	RUN(test_growing_by_hand);
	RUN(test_places_by_hand);
	RUN(test_what_expiry_takes);
	return checks_done();
}
