// SPDX-License-Identifier: MIT
/* Counters that pass 2^31, 2^32 and 2^63 while readers are at work. */
#include "base/seq.h"
#include "common.h"

static const uint8_t addr[16] = { [10] = 0xff, [11] = 0xff, [12] = 10, [15] = 1 };

/* One backend of a tracker, and the range of counts that its readers may see. */
struct subject {
	struct lbl_tracker *tracker;
	struct lbl_backend *backend;
	uint16_t name;
	uint32_t index;
	bool done;
	uint64_t least, most; /* counts before and after the current step */
};

static void subject_init(struct subject *subject)
{
	struct lbl_key key = { .port = 80 };

	memset(subject, 0, sizeof(*subject));
	subject->tracker = make_tracker(10, true);
	subject->name = (uint16_t)lbl_tracker_name(subject->tracker, "web", 3);
	REQUIRE(!lbl_tracker_backend(subject->tracker, LBL_LIFETIME, subject->name, addr, 80,
				     &subject->backend));
	key.proxy_ref = subject->name;
	memcpy(key.addr, addr, sizeof(addr));
	subject->index = lbl_table_find(&subject->tracker->own->table, &key);
	REQUIRE(subject->index);
}

static void subject_free(struct subject *subject)
{
	lbl_backend_free(subject->backend);
	lbl_tracker_free(subject->tracker);
}

/* Add `n` connections of 2^30 ns in one step, as a merge does. */
static void add(struct subject *subject, uint64_t n)
{
	struct lbl_shard *own = subject->tracker->own;
	struct lbl_bank *bank = &own->banks[LBL_LIFETIME];
	uint32_t slot = lbl_slot(bank->buckets, 1ULL << 30);
	lbl_u128 sum = (lbl_u128)n << 30;

	pthread_mutex_lock(&own->sink.lock);
	REQUIRE(!lbl_bank_add(bank, subject->index, slot, n));
	for (; sum >> 62; sum -= 1ULL << 62)
		lbl_bank_add_sum(bank, subject->index, 1ULL << 62);
	lbl_bank_add_sum(bank, subject->index, (uint64_t)sum);
	lbl_tally_add_closed(&own->table, subject->index, LBL_REASON_UNKNOWN, n);
	lbl_tally_add(&own->table, subject->index, LBL_HOT_OPENED, n);
	pthread_mutex_unlock(&own->sink.lock);
}

static struct lbl_backend_snapshot read_row(struct subject *subject)
{
	struct lbl_snapshot *snapshot;
	struct lbl_backend_snapshot row;

	REQUIRE(!lbl_tracker_snapshot_one(subject->tracker, LBL_LIFETIME, subject->name, addr, 80,
					  &snapshot));
	REQUIRE(snapshot->n_rows == 1);
	row = snapshot->rows[0];
	lbl_snapshot_free(snapshot);
	return row;
}

static lbl_u128 sum_of(const struct lbl_backend_snapshot *row)
{
	return (lbl_u128)row->sum_hi << 64 | row->sum_lo;
}

static void check_counts(struct subject *subject, uint64_t n)
{
	struct lbl_backend_snapshot row = read_row(subject);

	CHECK(row.count == n);
	CHECK(row.closed[LBL_REASON_UNKNOWN] == n);
	CHECK(sum_of(&row) == (lbl_u128)n << 30);
	CHECK(row.opened >= n - 2 && row.opened <= n); /* up to two were observed, not opened */
}

static void test_counters_carry_past_32_bits(void)
{
	struct subject subject;
	double seconds = (double)(1ULL << 30) / 1e9;

	subject_init(&subject);
	add(&subject, UINT32_MAX);
	check_counts(&subject, UINT32_MAX);
	CHECK(!lbl_backend_observe(subject.backend, seconds));
	check_counts(&subject, 1ULL << 32);
	CHECK(!lbl_backend_observe(subject.backend, seconds));
	check_counts(&subject, (1ULL << 32) + 1);
	add(&subject, 1ULL << 40);
	check_counts(&subject, (1ULL << 40) + (1ULL << 32) + 1);
	subject_free(&subject);
}

/* Mix one counter that has carried with counters that have not. */
static void test_counters_do_not_mix(void)
{
	struct subject subject;
	struct lbl_backend_snapshot row;
	double seconds;

	subject_init(&subject);
	add(&subject, 5ULL << 32);
	for (seconds = 1e-6; seconds < 1e7; seconds *= 10)
		CHECK(!lbl_backend_observe(subject.backend, seconds));
	row = read_row(&subject);
	CHECK(row.count == (5ULL << 32) + 13);
	CHECK(row.n == 14);
	subject_free(&subject);
}

/* Also if the carried part has no low bits. */
static void test_every_power_of_two(void)
{
	static struct lbl_totals totals;
	struct lbl_shard *shard = make_shard(1, false);
	struct lbl_bank *bank = &shard->banks[LBL_LIFETIME];
	uint32_t i;

	for (i = 0; i < 64; i++)
		REQUIRE(!lbl_bank_add(bank, 0, 3 * i, 1ULL << i));
	lbl_totals_clear(&totals);
	lbl_bank_read(bank, 0, &totals);
	for (i = 0; i < 3 * 64; i++)
		CHECK(totals.slots[i] == (i % 3 ? 0 : 1ULL << i / 3));
	CHECK(totals.first == 0 && totals.end == 3 * 64 && totals.sum == 0);
	free_shard(shard);
}

static void test_merging_keeps_all_128_bits(void)
{
	struct lbl_event event = closed_event(1ULL << 57, 1);
	struct lbl_stream *stream;
	struct subject subject;
	struct lbl_backend_snapshot row;
	int i;

	subject_init(&subject);
	REQUIRE(!lbl_stream_memory(4096, &stream));
	REQUIRE(!start_on(subject.tracker, &stream, 1, "web"));
	for (i = 0; i < 1000; i++) {
		REQUIRE(!lbl_stream_produce(stream, &event, sizeof(event)));
		REQUIRE(lbl_stream_drain(stream) >= 0);
	}
	row = read_row(&subject);
	CHECK(sum_of(&row) == (lbl_u128)1000 << 57);
	lbl_tracker_stop(subject.tracker);
	row = read_row(&subject);
	CHECK(sum_of(&row) == (lbl_u128)1000 << 57);
	CHECK(row.count == 1000 && row.closed[LBL_REASON_FIN] == 1000);
	lbl_stream_free(stream);
	subject_free(&subject);
}

/* A reader retries if a writer was at work. */
static void test_a_read_beside_a_write_is_done_again(void)
{
	uint32_t seq = 0, round;

	for (round = 0; round < 3; round++) {
		uint32_t before = lbl_seq_read_begin(&seq), amid;

		CHECK(!lbl_seq_read_retry(&seq, before));
		lbl_seq_write_begin(&seq);
		amid = lbl_seq_read_begin(&seq);
		CHECK(lbl_seq_read_retry(&seq, before) && lbl_seq_read_retry(&seq, amid));
		lbl_seq_write_end(&seq);
		CHECK(lbl_seq_read_retry(&seq, before) && lbl_seq_read_retry(&seq, amid));
	}
}

static void *read_on(void *arg)
{
	struct subject *subject = arg;
	lbl_u128 last_sum = 0;
	uint64_t last = 0;

	while (!__atomic_load_n(&subject->done, __ATOMIC_ACQUIRE)) {
		uint64_t least = __atomic_load_n(&subject->least, __ATOMIC_ACQUIRE), most;
		struct lbl_backend_snapshot row = read_row(subject);

		most = __atomic_load_n(&subject->most, __ATOMIC_ACQUIRE);
		CHECK(row.count >= least && row.count <= most && row.count >= last);
		CHECK(row.closed[0] >= least && row.closed[0] <= most);
		CHECK(row.opened >= least && row.opened <= most);
		CHECK(sum_of(&row) >= (lbl_u128)least << 30 && sum_of(&row) <= (lbl_u128)most
										       << 30);
		CHECK(sum_of(&row) >= last_sum);
		last = row.count;
		last_sum = sum_of(&row);
	}
	return NULL;
}

/* Each step carries the counter, the closed count and the sum; no reader sees a partial carry. */
static void test_readers_never_see_half_a_carry(void)
{
	struct subject subject;
	pthread_t readers[2];
	uint64_t n = 0;
	int i;

	subject_init(&subject);
	add(&subject, 1);
	subject.least = subject.most = n = 1;
	for (i = 0; i < 2; i++)
		REQUIRE(!pthread_create(&readers[i], NULL, read_on, &subject));
	for (i = 0; i < 20000; i++) {
		uint64_t step = (1ULL << 31) + (uint64_t)i;

		__atomic_store_n(&subject.most, n + step, __ATOMIC_RELEASE);
		add(&subject, step);
		n += step;
		__atomic_store_n(&subject.least, n, __ATOMIC_RELEASE);
	}
	__atomic_store_n(&subject.done, true, __ATOMIC_RELEASE);
	for (i = 0; i < 2; i++)
		pthread_join(readers[i], NULL);
	check_counts(&subject, n);
	subject_free(&subject);
}

/* Blocks are allocated and backends added while a reader is at work. */
static void test_readers_survive_growth(void)
{
	struct subject subject;
	pthread_t reader;
	int round, i;

	subject_init(&subject);
	add(&subject, 1);
	subject.least = 1;
	subject.most = UINT64_MAX;
	REQUIRE(!pthread_create(&reader, NULL, read_on, &subject));
	for (round = 0; round < 200; round++) {
		struct lbl_backend *backend;
		uint8_t other[16] = { 0 };

		other[0] = (uint8_t)round;
		REQUIRE(!lbl_tracker_backend(subject.tracker, LBL_LIFETIME, subject.name, other, 80,
					     &backend));
		for (i = 0; i < 400; i++)
			lbl_backend_observe(subject.backend, 1e-6 * (double)(1ULL << i / 10));
		for (i = 0; i < 40; i++)
			lbl_backend_observe(backend, 1e-6 * (double)(1ULL << i));
		lbl_backend_free(backend);
	}
	__atomic_store_n(&subject.done, true, __ATOMIC_RELEASE);
	pthread_join(reader, NULL);
	CHECK(read_row(&subject).count == 1 + 200 * 400);
	subject_free(&subject);
}

int main(void)
{
	RUN(test_counters_carry_past_32_bits);
	RUN(test_counters_do_not_mix);
	RUN(test_every_power_of_two);
	RUN(test_merging_keeps_all_128_bits);
	RUN(test_a_read_beside_a_write_is_done_again);
	RUN(test_readers_never_see_half_a_carry);
	RUN(test_readers_survive_growth);
	return checks_done();
}
