// SPDX-License-Identifier: MIT
/* What a drain passes on: the sizes of bursts and batches, to all sinks, under their locks. */
#include "common.h"

enum { SINKS = 2, MANY = 3000 };

struct taker {
	struct lbl_sink sink;
	uint64_t n, bursts, batches;
	uint32_t last_len;
	bool unlocked, wrong;
};

static struct taker takers[SINKS];
static struct lbl_sink *sinks[SINKS];
static struct lbl_drain_counts counts;
static struct lbl_ring ring;

static struct taker *taker_of(struct lbl_sink *sink)
{
	struct taker *taker = (struct taker *)sink;

	if (!pthread_mutex_trylock(&sink->lock)) {
		taker->unlocked = true;
		pthread_mutex_unlock(&sink->lock);
	}
	return taker;
}

static void take_burst(struct lbl_sink *sink, const void *first, uint32_t n)
{
	struct taker *taker = taker_of(sink);
	const struct lbl_event *event = first;

	taker->wrong |= !n || n > LBL_BURST_MAX || event->timestamp_ns != taker->n;
	taker->bursts++;
	taker->n += n;
}

static void take_record(struct lbl_sink *sink, const void *data, uint32_t len)
{
	struct taker *taker = taker_of(sink);

	(void)data;
	taker->last_len = len;
	taker->n++;
}

static void end_batch(struct lbl_sink *sink)
{
	taker_of(sink)->batches++;
}

/* One sink has no `end` operation. */
static const struct lbl_sink_ops ops[SINKS] = {
	{ .burst = take_burst, .record = take_record, .end = end_batch },
	{ .burst = take_burst, .record = take_record },
};

static void set_up(void)
{
	int i;

	REQUIRE(!lbl_ring_memory(&ring, 1 << 18));
	counts = (struct lbl_drain_counts){ 0 };
	for (i = 0; i < SINKS; i++) {
		takers[i] = (struct taker){ 0 };
		lbl_sink_init(&takers[i].sink, &ops[i]);
		sinks[i] = &takers[i].sink;
	}
}

static void tear_down(uint64_t taken)
{
	int i;

	CHECK(counts.received == taken && !counts.corrupt);
	for (i = 0; i < SINKS; i++) {
		CHECK(takers[i].n == taken && !takers[i].unlocked && !takers[i].wrong);
		CHECK(!pthread_mutex_trylock(&takers[i].sink.lock));
		pthread_mutex_unlock(&takers[i].sink.lock);
		lbl_sink_destroy(&takers[i].sink);
	}
	lbl_ring_unmap(&ring);
}

static void produce(uint64_t n, uint32_t len)
{
	struct lbl_event events[3] = { 0 }; /* the size of the longest record */

	for (; events[0].timestamp_ns < n; events[0].timestamp_ns++)
		REQUIRE(!lbl_ring_produce(&ring, events, len));
}

static bool drain_batch(void)
{
	return lbl_drain_batch(&ring, *ring.producer_pos, sinks, SINKS, &counts);
}

/* Other threads wait for the locks, so a batch is bounded for all records. Returns its size. */
static uint64_t check_batches(uint32_t len)
{
	uint64_t batch, left = MANY;

	set_up();
	produce(MANY, len);
	CHECK(drain_batch());
	batch = counts.received;
	CHECK(batch >= 100 && batch < MANY);
	for (left -= batch; left > batch; left -= batch) {
		CHECK(drain_batch());
		CHECK(counts.received == MANY - left + batch);
	}
	CHECK(!drain_batch() && counts.received == MANY);
	CHECK(takers[0].batches == (MANY + batch - 1) / batch && !takers[1].batches);
	CHECK(lbl_ring_fill(&ring) == 0);
	tear_down(MANY);
	return batch;
}

static void test_a_batch_is_bounded(void)
{
	CHECK(check_batches(LBL_EVENT_BYTES) == check_batches(40));
	CHECK(takers[0].bursts == 0 && takers[0].last_len == 40);
}

/* A burst has the maximal length, and a record of another length ends it. */
static void test_bursts_are_whole(void)
{
	set_up();
	produce(3 * LBL_BURST_MAX, LBL_EVENT_BYTES);
	CHECK(!drain_batch() && takers[0].bursts == 3);
	tear_down(3 * LBL_BURST_MAX);
	set_up();
	produce(LBL_BURST_MAX - 1, LBL_EVENT_BYTES);
	produce(1, 120);
	CHECK(!drain_batch() && takers[0].bursts == 1 && takers[0].last_len == 120);
	tear_down(LBL_BURST_MAX);
}

static void test_what_comes_later_is_left(void)
{
	set_up();
	produce(100, LBL_EVENT_BYTES);
	CHECK(!lbl_drain_batch(&ring, 10 * LBL_EVENT_STRIDE, sinks, SINKS, &counts));
	CHECK(counts.received == 10 && lbl_ring_waiting(&ring) == 90);
	CHECK(!drain_batch());
	CHECK(!drain_batch() && takers[0].batches == 3);
	tear_down(100);
}

static void test_the_highest_fill_is_kept(void)
{
	set_up();
	CHECK(lbl_drain_end(&ring, &counts) == 0 && counts.fill_max == 0);
	produce(5, LBL_EVENT_BYTES);
	CHECK(lbl_drain_end(&ring, &counts) == 5 * LBL_EVENT_STRIDE);
	CHECK(counts.fill_max == 5 * LBL_EVENT_STRIDE && !drain_batch());
	produce(2, 40);
	CHECK(lbl_drain_end(&ring, &counts) == 5 * LBL_EVENT_STRIDE + 2 * 48);
	CHECK(counts.fill_max == 5 * LBL_EVENT_STRIDE && !drain_batch());
	tear_down(7);
}

int main(void)
{
	RUN(test_a_batch_is_bounded);
	RUN(test_bursts_are_whole);
	RUN(test_what_comes_later_is_left);
	RUN(test_the_highest_fill_is_kept);
	return checks_done();
}
