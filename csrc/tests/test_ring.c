// SPDX-License-Identifier: MIT
/* Rings with invalid contents, and records that are not submitted yet. */
#include "common.h"

static struct lbl_stream *stream;
static struct lbl_shard *shard;
static struct lbl_holder nobody;

static void set_up(uint32_t bytes)
{
	shard = make_shard(100, false);
	REQUIRE(!lbl_stream_memory(bytes, &stream));
	lbl_stream_stop(stream);
	stream->sinks[0] = &shard->sink; /* attached without a thread that drains */
	stream->n_sinks = 1;
}

static void tear_down(void)
{
	CHECK(accounted(&shard->outcomes) && kinds(&shard->outcomes) == stream->counts.received);
	lbl_stream_free(stream);
	free_shard(shard);
}

static void produce(uint8_t backend)
{
	struct lbl_event event = closed_event(SECOND, backend);

	REQUIRE(!lbl_stream_produce(stream, &event, sizeof(event)));
}

static uint32_t *header(uint64_t at)
{
	return (uint32_t *)(uintptr_t)(stream->ring.data + (at & stream->ring.mask));
}

static void test_a_busy_record_is_waited_for(void)
{
	set_up(4096);
	produce(1);
	produce(2);
	produce(3);
	*header(64) |= LBL_RING_BUSY;
	CHECK(lbl_stream_drain(stream) >= 0);
	CHECK(stream->counts.received == 1 && *stream->ring.consumer_pos == 64);
	CHECK(lbl_stream_drain(stream) >= 0);
	CHECK(stream->counts.received == 1);
	*header(64) &= ~LBL_RING_BUSY;
	CHECK(lbl_stream_drain(stream) >= 0);
	CHECK(stream->counts.received == 3 && shard->outcomes.recorded == 3 &&
	      !stream->counts.corrupt);
	tear_down();
}

/* A spinning thread could preempt the producer that it waits for. */
static void test_a_busy_record_is_not_waited_for_by_spinning(void)
{
	const struct timespec wait = { .tv_nsec = 100000000 };
	clockid_t clock;
	int i;

	set_up(4096);
	for (i = 0; i < 40; i++)
		produce(1);
	*header(0) |= LBL_RING_BUSY;
	stream->stopping = false;
	REQUIRE(!lbl_stream_start(stream, &nobody));
	REQUIRE(!pthread_getcpuclockid(stream->thread, &clock));
	nanosleep(&wait, NULL);
	CHECK(now_ns(clock) < SECOND / 50);
	__atomic_and_fetch(header(0), ~LBL_RING_BUSY, __ATOMIC_RELEASE); /* like a producer */
	lbl_stream_stop(stream);
	CHECK(lbl_stream_drain(stream) >= 0);
	CHECK(shard->outcomes.recorded == 40);
	tear_down();
}

static void test_a_discarded_record_is_passed_over(void)
{
	set_up(4096);
	produce(1);
	produce(2);
	*header(0) |= LBL_RING_DISCARDED;
	CHECK(lbl_ring_waiting(&stream->ring) == 1);
	CHECK(lbl_stream_drain(stream) >= 0);
	CHECK(stream->counts.received == 1 && shard->outcomes.recorded == 1);
	CHECK(*stream->ring.consumer_pos == 128);
	tear_down();
}

static void test_a_length_beyond_the_end_is_corrupt(void)
{
	set_up(4096);
	produce(1);
	produce(2);
	*header(64) = LBL_RING_LEN;
	CHECK(lbl_ring_waiting(&stream->ring) <= 2);
	CHECK(lbl_stream_drain(stream) >= 0);
	CHECK(stream->counts.received == 1 && stream->counts.corrupt == 1);
	CHECK(*stream->ring.consumer_pos == *stream->ring.producer_pos);
	produce(3);
	CHECK(lbl_stream_drain(stream) >= 0);
	CHECK(stream->counts.received == 2);
	tear_down();
}

static void test_positions_too_far_apart_are_corrupt(void)
{
	set_up(4096);
	produce(1);
	*stream->ring.producer_pos = 1 << 20;
	CHECK(lbl_ring_waiting(&stream->ring) == 0);
	CHECK(lbl_stream_drain(stream) >= 0);
	CHECK(stream->counts.corrupt == 1 && stream->counts.received == 0);
	CHECK(*stream->ring.consumer_pos == 1 << 20);
	*stream->ring.producer_pos = 1 << 10; /* behind the consumer */
	CHECK(lbl_stream_drain(stream) >= 0);
	CHECK(stream->counts.corrupt == 2 && *stream->ring.consumer_pos == 1 << 10);
	tear_down();
}

/* A position that cannot be ours is put back, wherever it points; nothing comes twice. */
static void test_a_position_that_was_set_back_is_restored(void)
{
	static const uint64_t others[] = { 0, 64, 3, 67, 1 << 20, UINT64_MAX, UINT64_MAX - 63 };
	uint32_t i;

	for (i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		set_up(4096);
		produce(1);
		produce(2);
		CHECK(lbl_stream_drain(stream) == 2);
		produce(3);
		*stream->ring.consumer_pos = others[i];
		CHECK(lbl_ring_waiting(&stream->ring) == 1);
		CHECK(lbl_stream_drain(stream) == 1 && *stream->ring.consumer_pos == 192);
		CHECK(stream->counts.moved == 1 && !stream->counts.taken &&
		      !stream->counts.corrupt);
		tear_down();
	}
}

/* So is one within a record, where garbage would be read as records. */
static void test_a_position_within_a_record_is_not_adopted(void)
{
	uint64_t at;
	int i;

	for (at = 8; at < 640; at += 8) {
		bool is_boundary = at % LBL_EVENT_STRIDE == 0;

		set_up(4096);
		for (i = 0; i < 10; i++)
			produce(1);
		*stream->ring.consumer_pos = at;
		CHECK(lbl_stream_drain(stream) == (is_boundary ? 10 - (int64_t)at / 64 : 10));
		CHECK(stream->counts.moved == 1 && !stream->counts.corrupt);
		CHECK(stream->counts.taken == (is_boundary ? at / 64 : 0));
		tear_down();
	}
}

/* One that is ahead is adopted: what lies between went to somebody else. */
static void test_a_position_that_was_set_ahead_is_adopted(void)
{
	struct lbl_stream_stats stats;
	struct lbl_ledger *ledger;
	uint32_t i;

	set_up(4096);
	REQUIRE(!lbl_ledger_new(&stream, 1, &ledger));
	for (i = 0; i < 10; i++)
		produce((uint8_t)i);
	*header(128) |= LBL_RING_DISCARDED;
	*stream->ring.consumer_pos = 256;
	REQUIRE(!lbl_ledger_read(ledger, &stats));
	CHECK(stats.taken == 3 && stats.moved == 1 && stats.in_ring == 6 && !stats.received);
	CHECK(stats.fill_bytes == 6 * LBL_EVENT_STRIDE);
	CHECK(lbl_stream_drain(stream) == 6 && !stream->counts.corrupt);
	*stream->ring.producer_pos += 8192; /* more than a ring: what was taken is overwritten */
	*stream->ring.consumer_pos = *stream->ring.producer_pos;
	CHECK(lbl_stream_drain(stream) == 0 && stream->counts.taken == 3 + 128);
	CHECK(stream->counts.moved == 2 && !stream->counts.corrupt);
	lbl_ledger_free(ledger);
	tear_down();
}

/* Whatever it holds, what lies within a record is never taken for one, nor waited for. */
static void test_a_ring_begins_with_a_record(void)
{
	static const uint32_t lens[] = { 56, 100, 0, 56, 5000, 8, 56, 56, 3000, 20 };
	static const uint8_t fills[] = { 0, 0x01, 0x08, 0x20, 0x80, 0xff };
	enum { N = sizeof(lens) / sizeof(lens[0]) };
	uint64_t starts[N + 1], at, first;
	uint8_t record[5000];
	uint32_t i, k;

	for (i = 0; i < sizeof(fills); i++) {
		set_up(16384);
		for (first = 0; first < 6000 * i; first = *stream->ring.producer_pos) {
			REQUIRE(!lbl_stream_produce(stream, record, 2000));
			CHECK(lbl_stream_drain(stream) == 1);
		}
		memset(record, fills[i], sizeof(record));
		for (k = 0; k < N; k++) {
			starts[k] = *stream->ring.producer_pos;
			REQUIRE(!lbl_stream_produce(stream, record, lens[k]));
		}
		starts[N] = *stream->ring.producer_pos;
		*header(starts[3]) |= LBL_RING_BUSY;
		*header(starts[6]) |= LBL_RING_DISCARDED;
		for (at = first, k = 0; at <= starts[N]; at += 8) {
			struct lbl_drain_counts counts = { 0 };
			bool is_start = at == starts[k];

			k += is_start;
			*stream->ring.consumer_pos = at;
			lbl_drain_begin(&stream->ring, &counts);
			CHECK(stream->ring.position == (is_start ? at : starts[N]));
			CHECK(*stream->ring.consumer_pos == stream->ring.position);
			CHECK(counts.corrupt == !is_start && !counts.moved && !counts.taken);
		}
		CHECK(k == N + 1 && lbl_stream_drain(stream) == 0);
		tear_down();
	}
}

static uint64_t consumed_meanwhile;

/* A sink in whose burst another consumer moves the position. */
static void move_position(struct lbl_sink *sink, const void *first, uint32_t n)
{
	lbl_shard_ops.burst(sink, first, n);
	*stream->ring.consumer_pos = consumed_meanwhile;
}

static void test_a_position_that_moves_during_a_batch(void)
{
	static const uint64_t others[] = { 64, 192, 320 }; /* behind, as we, ahead */
	struct lbl_sink_ops ops = lbl_shard_ops;
	uint32_t i, k;

	ops.burst = move_position;
	for (i = 0; i < 3; i++) {
		set_up(4096);
		shard->sink.ops = &ops;
		for (k = 0; k < 5; k++)
			produce(1);
		*header(192) |= LBL_RING_BUSY;
		consumed_meanwhile = others[i];
		CHECK(lbl_stream_drain(stream) == 3);
		shard->sink.ops = &lbl_shard_ops;
		*header(192) &= ~LBL_RING_BUSY;
		CHECK(lbl_stream_drain(stream) == (i < 2 ? 2 : 0));
		CHECK(*stream->ring.consumer_pos == 320 && stream->counts.moved == (i != 1));
		CHECK(stream->counts.taken == (i < 2 ? 0 : 2) && !stream->counts.corrupt);
		tear_down();
	}
}

/* Since a second ago, and only as long as it is so: a record under way does not show. */
static void test_a_record_that_stays_reserved_is_a_stall(void)
{
	struct lbl_ring *ring;
	uint64_t now = 5 * SECOND;

	set_up(4096);
	ring = &stream->ring;
	produce(1);
	produce(2);
	*header(0) |= LBL_RING_BUSY;
	CHECK(!lbl_ring_stalled_since(ring, now));
	lbl_ring_look(ring, now);
	lbl_ring_look(ring, now + 1);
	CHECK(!lbl_ring_stalled_since(ring, now + SECOND - 1));
	CHECK(lbl_ring_stalled_since(ring, now + SECOND) == now);
	*header(0) &= ~LBL_RING_BUSY;
	CHECK(!lbl_ring_stalled_since(ring, now + SECOND));
	*header(64) |= LBL_RING_BUSY;
	CHECK(lbl_stream_drain(stream) == 1);
	CHECK(!lbl_ring_stalled_since(ring, lbl_now_ns()));
	now = lbl_now_ns() + 1;
	CHECK(lbl_ring_stalled_since(ring, now + SECOND) < now);
	CHECK(lbl_ring_stalled_since(ring, now + SECOND));
	*header(64) &= ~LBL_RING_BUSY;
	lbl_ring_look(ring, now);
	*header(64) |= LBL_RING_BUSY;
	CHECK(!lbl_ring_stalled_since(ring, now + SECOND));
	*header(64) &= ~LBL_RING_BUSY;
	CHECK(lbl_stream_drain(stream) == 1);
	lbl_ring_look(ring, now);
	CHECK(!lbl_ring_stalled_since(ring, now + SECOND));
	tear_down();
}

static void test_a_stall_is_told(void)
{
	struct lbl_stream_stats stats;
	uint64_t since;

	set_up(4096);
	produce(1);
	*header(0) |= LBL_RING_BUSY;
	CHECK(lbl_stream_drain(stream) == 0);
	stats = read_streams(&stream, 1);
	CHECK(!stats.stalled_since_ns && !stats.stalled_seconds && stats.in_ring == 1);
	stream->ring.busy_since -= 1000 * SECOND;
	since = stream->ring.busy_since;
	CHECK(lbl_stream_drain(stream) == 0);
	stats = read_streams(&stream, 1);
	CHECK(stats.stalled_since_ns == since && stats.stalled_seconds >= 1000);
	*header(0) &= ~LBL_RING_BUSY;
	stats = read_streams(&stream, 1);
	CHECK(!stats.stalled_since_ns && !stats.stalled_seconds);
	CHECK(lbl_stream_drain(stream) == 1);
	tear_down();
}

static void test_records_wrap_around(void)
{
	uint8_t record[300] = { 0 };
	uint32_t len;

	set_up(4096);
	for (len = 0; len < sizeof(record); len++) {
		REQUIRE(!lbl_stream_produce(stream, record, len));
		produce((uint8_t)(len % 8));
		CHECK(lbl_stream_drain(stream) >= 0);
	}
	CHECK(stream->counts.received == 600 && shard->outcomes.malformed == 300);
	CHECK(shard->outcomes.recorded == 300 && !stream->counts.corrupt);
	tear_down();
}

int main(void)
{
	RUN(test_a_busy_record_is_waited_for);
	RUN(test_a_busy_record_is_not_waited_for_by_spinning);
	RUN(test_a_discarded_record_is_passed_over);
	RUN(test_a_length_beyond_the_end_is_corrupt);
	RUN(test_positions_too_far_apart_are_corrupt);
	RUN(test_a_position_that_was_set_back_is_restored);
	RUN(test_a_position_within_a_record_is_not_adopted);
	RUN(test_a_position_that_was_set_ahead_is_adopted);
	RUN(test_a_ring_begins_with_a_record);
	RUN(test_a_position_that_moves_during_a_batch);
	RUN(test_a_record_that_stays_reserved_is_a_stall);
	RUN(test_a_stall_is_told);
	RUN(test_records_wrap_around);
	return checks_done();
}
