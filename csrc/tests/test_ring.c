// SPDX-License-Identifier: MIT
/* Rings with invalid contents, and records that are not submitted yet. */
#include "common.h"

static struct lbl_stream *stream;
static struct lbl_shard *shard;
static struct lbl_drain_counts unused;

static void set_up(uint32_t bytes)
{
	shard = make_shard(100, false);
	REQUIRE(!lbl_stream_memory(bytes, &stream));
	stream->sinks[0] = &shard->sink; /* attached without a drain thread */
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
	stream->n_sinks = 0;
	for (i = 0; i < 40; i++)
		produce(1);
	*header(0) |= LBL_RING_BUSY;
	REQUIRE(!lbl_stream_attach(stream, &shard->sink, &unused));
	REQUIRE(!pthread_getcpuclockid(stream->thread, &clock));
	nanosleep(&wait, NULL);
	CHECK(now_ns(clock) < SECOND / 50);
	__atomic_and_fetch(header(0), ~LBL_RING_BUSY, __ATOMIC_RELEASE); /* like a producer */
	lbl_stream_detach(stream, &shard->sink, &unused);
	lbl_stream_free(stream); /* the reference that lbl_stream_attach() took */
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

/* Valid positions are multiples of 8; a hostile consumer may have written others. */
static void test_an_odd_position_is_corrupt(void)
{
	set_up(4096);
	produce(1);
	*stream->ring.consumer_pos = 3;
	CHECK(lbl_stream_drain(stream) >= 0);
	CHECK(stream->counts.corrupt == 1 && *stream->ring.consumer_pos == 64);
	produce(2);
	CHECK(lbl_stream_drain(stream) >= 0);
	CHECK(stream->counts.received == 1);
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
	RUN(test_an_odd_position_is_corrupt);
	RUN(test_records_wrap_around);
	return checks_done();
}
