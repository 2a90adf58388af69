// SPDX-License-Identifier: MIT
/* The drain thread: when it starts, drains and ends, and which sinks it feeds. */
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common.h"

/* A sink that counts records, and the signals that its thread accepts. */
struct counter {
	struct lbl_sink sink;
	uint64_t n;
	sigset_t blocked;
};

static void take_burst(struct lbl_sink *sink, const void *first, uint32_t n)
{
	struct counter *counter = (struct counter *)sink;

	(void)first;
	pthread_sigmask(SIG_SETMASK, NULL, &counter->blocked);
	lbl_owner_add(&counter->n, n);
}

static const struct lbl_sink_ops counter_ops = { .burst = take_burst };
static struct lbl_drain_counts unused;

static struct lbl_stream *open_stream(uint32_t bytes)
{
	struct lbl_stream *stream;

	REQUIRE(!lbl_stream_memory(bytes, &stream));
	return stream;
}

static void produce(struct lbl_stream *stream, uint32_t n)
{
	struct lbl_event event = closed_event(SECOND, 1);

	while (n--)
		REQUIRE(!lbl_stream_produce(stream, &event, sizeof(event)));
}

/* Detach, and drop the reference that lbl_stream_attach() took. */
static void detach(struct lbl_stream *stream, struct counter *counter)
{
	lbl_stream_detach(stream, &counter->sink, &unused);
	lbl_stream_free(stream);
}

enum { IDLE_WAITS = 8 };

static int waits[64];
static uint64_t n_waits;

/* Idle waits return at once, except for the first one, without a sink. */
static int note_wait(int timeout_ms)
{
	uint64_t n = n_waits;

	if (n < sizeof(waits) / sizeof(waits[0]))
		waits[n] = timeout_ms;
	__atomic_store_n(&n_waits, n + 1, __ATOMIC_RELEASE);
	return n && n <= IDLE_WAITS ? 0 : -1;
}

/* Without a sink it waits a second, and an attachment wakes it. */
static void test_an_idle_thread_waits_longer_up_to_a_quarter_second(void)
{
	struct counter counter = { 0 };
	struct lbl_stream *stream;
	int i, ms;

	choose_wait = note_wait;
	stream = open_stream(4096);
	lbl_sink_init(&counter.sink, &counter_ops);
	REQUIRE(comes_to(&n_waits, 1));
	REQUIRE(!lbl_stream_attach(stream, &counter.sink, &unused));
	REQUIRE(comes_to(&n_waits, IDLE_WAITS + 2));
	produce(stream, 1);
	lbl_stream_wake(stream);
	REQUIRE(comes_to(&n_waits, IDLE_WAITS + 3));
	detach(stream, &counter);
	lbl_stream_free(stream);
	choose_wait = NULL;
	CHECK(waits[0] == 1000);
	for (i = 1, ms = 20; i <= IDLE_WAITS + 1; i++, ms = ms < 125 ? 2 * ms : 250)
		CHECK(waits[i] == ms);
	CHECK(waits[i] == 10 && counter.n == 1);
	lbl_sink_destroy(&counter.sink);
}

static int wait_for_ever(int timeout_ms)
{
	(void)timeout_ms;
	__atomic_store_n(&n_waits, n_waits + 1, __ATOMIC_RELEASE);
	return -1;
}

/* The thread is woken at each quarter of the ring, without waiting for the timer. */
static void test_a_ring_that_fills_up_wakes_the_thread(void)
{
	uint32_t quarter = (1 << 16) / 4 / LBL_EVENT_STRIDE, round;
	struct counter counter = { 0 };
	struct lbl_stream *stream;

	n_waits = 0;
	choose_wait = wait_for_ever;
	stream = open_stream(1 << 16);
	lbl_sink_init(&counter.sink, &counter_ops);
	REQUIRE(comes_to(&n_waits, 1));
	REQUIRE(!lbl_stream_attach(stream, &counter.sink, &unused));
	for (round = 1; round <= 5; round++) {
		REQUIRE(comes_to(&n_waits, round + 1));
		produce(stream, quarter);
		CHECK(comes_to(&counter.n, round * quarter));
	}
	detach(stream, &counter);
	lbl_stream_free(stream);
	choose_wait = NULL;
	lbl_sink_destroy(&counter.sink);
}

/* Only its thread drains the ring here. */
static void test_a_stream_drains_by_itself_after_each_attachment(void)
{
	struct lbl_stream *stream = open_stream(4096);
	struct counter counter = { 0 };
	uint32_t round;

	lbl_sink_init(&counter.sink, &counter_ops);
	for (round = 1; round <= 3; round++) {
		REQUIRE(!lbl_stream_attach(stream, &counter.sink, &unused));
		produce(stream, 1);
		CHECK(comes_to(&counter.n, round));
		detach(stream, &counter);
	}
	lbl_sink_destroy(&counter.sink);
	lbl_stream_free(stream);
}

/* It goes on while any sink is left; each gets what came while it was attached. */
static void test_the_thread_lives_as_long_as_the_stream(void)
{
	struct lbl_stream *stream = open_stream(4096);
	struct counter counters[3] = { 0 };
	int i;

	CHECK(stream->running);
	for (i = 0; i < 3; i++) {
		lbl_sink_init(&counters[i].sink, &counter_ops);
		REQUIRE(!lbl_stream_attach(stream, &counters[i].sink, &unused));
	}
	for (i = 0; i < 3; i++) {
		produce(stream, 1);
		detach(stream, &counters[i]);
		CHECK(stream->running);
		CHECK(counters[i].n == (uint64_t)i + 1);
	}
	CHECK(stream->refs == 1);
	for (i = 0; i < 3; i++)
		lbl_sink_destroy(&counters[i].sink);
	lbl_stream_free(stream);
}

/* The drain thread accepts no signals; the thread that started it still does. */
static void test_the_thread_takes_no_signals(void)
{
	struct lbl_stream *stream = open_stream(4096);
	struct counter counter = { 0 };
	sigset_t mine;

	lbl_sink_init(&counter.sink, &counter_ops);
	REQUIRE(!lbl_stream_attach(stream, &counter.sink, &unused));
	produce(stream, 1);
	CHECK(comes_to(&counter.n, 1));
	pthread_sigmask(SIG_SETMASK, NULL, &mine);
	detach(stream, &counter);
	CHECK(sigismember(&counter.blocked, SIGINT) && sigismember(&counter.blocked, SIGUSR1));
	CHECK(!sigismember(&mine, SIGINT) && !sigismember(&mine, SIGUSR1));
	lbl_sink_destroy(&counter.sink);
	lbl_stream_free(stream);
}

/* In any order of attaching, each sink receives the counts at its attach and detach. */
static void test_sinks_are_kept_by_serial(void)
{
	static struct counter counters[LBL_SINKS_MAX + 1];
	struct lbl_stream *stream = open_stream(1 << 16);
	struct lbl_drain_counts counts;
	uint32_t i, k;

	for (i = 0; i <= LBL_SINKS_MAX; i++)
		lbl_sink_init(&counters[i].sink, &counter_ops);
	for (i = 0; i < LBL_SINKS_MAX; i++) {
		k = i * 5 % LBL_SINKS_MAX;
		REQUIRE(!lbl_stream_attach(stream, &counters[k].sink, &counts));
		CHECK(counts.received == 3 * i);
		produce(stream, 3);
		lbl_stream_drain(stream);
	}
	CHECK(lbl_stream_attach(stream, &counters[LBL_SINKS_MAX].sink, &counts) == -ENOSPC);
	for (i = 0; i < LBL_SINKS_MAX; i++)
		CHECK(stream->sinks[i] == &counters[i].sink);
	for (i = 0; i < LBL_SINKS_MAX; i++) {
		k = i * 7 % LBL_SINKS_MAX;
		lbl_stream_detach(stream, &counters[k].sink, &counts);
		lbl_stream_free(stream);
		CHECK(counts.received == 3 * LBL_SINKS_MAX &&
		      stream->n_sinks + i + 1 == LBL_SINKS_MAX);
	}
	for (i = 0; i <= LBL_SINKS_MAX; i++)
		lbl_sink_destroy(&counters[i].sink);
	lbl_stream_free(stream);
}

static void test_a_drain_says_how_many(void)
{
	struct lbl_stream *stream = open_stream(1 << 18);

	lbl_stream_stop(stream);
	produce(stream, 3000);
	CHECK(lbl_stream_drain(stream) == 0); /* nobody is attached */
	drain_by_hand(stream);
	CHECK(lbl_stream_drain(stream) == 3000);
	produce(stream, 1);
	CHECK(lbl_stream_drain(stream) == 1 && lbl_stream_alive(stream));
	lbl_stream_free(stream);
}

static void test_a_full_ring_drops_and_counts(void)
{
	struct lbl_stream *stream = open_stream(4096);
	struct lbl_event event = closed_event(SECOND, 1);
	struct lbl_stream_stats stats;

	drain_by_hand(stream);
	produce(stream, 64);
	CHECK(lbl_stream_produce(stream, &event, sizeof(event)) == -ENOSPC);
	CHECK(lbl_stream_produce(stream, &event, 4096) == -EINVAL);
	stats = read_streams(&stream, 1);
	CHECK(stats.counted && stats.produced == 65 && stats.dropped == 1 && stats.in_ring == 64);
	CHECK(stats.fill_bytes == 4096 && stats.size_bytes == 4096 && !stats.fill_max_bytes);
	lbl_stream_drain(stream);
	stats = read_streams(&stream, 1);
	CHECK(stats.received == 64 && !stats.in_ring && !stats.corrupt && !stats.fill_bytes);
	CHECK(stats.fill_max_bytes == 4096);
	lbl_stream_free(stream);
}

/* A stream needs two fds, and leaks none if one is refused. */
static void test_no_descriptors(void)
{
	struct rlimit before, scarce;
	struct lbl_stream *stream;
	int first = dup(STDOUT_FILENO), i;

	REQUIRE(first >= 0 && !close(first) && !getrlimit(RLIMIT_NOFILE, &before));
	scarce = before;
	for (i = 0; i <= 2; i++) {
		scarce.rlim_cur = (rlim_t)(first + i);
		REQUIRE(!setrlimit(RLIMIT_NOFILE, &scarce));
		CHECK(lbl_stream_memory(4096, &stream) == (i < 2 ? -EMFILE : 0));
	}
	REQUIRE(!setrlimit(RLIMIT_NOFILE, &before));
	lbl_stream_free(stream);
	CHECK(dup(STDOUT_FILENO) == first && !close(first));
}

static void test_sizes_of_rings(void)
{
	struct lbl_stream *stream;

	CHECK(lbl_stream_memory(0, &stream) == -EINVAL);
	CHECK(lbl_stream_memory(2048, &stream) == -EINVAL);
	CHECK(lbl_stream_memory(4097, &stream) == -EINVAL);
	CHECK(lbl_stream_memory(3 << 12, &stream) == -EINVAL);
	no_memory = true;
	CHECK(lbl_stream_memory(4096, &stream) == -ENOMEM);
	no_memory = false;
	lbl_stream_free(NULL);
}

int main(void)
{
	RUN(test_an_idle_thread_waits_longer_up_to_a_quarter_second);
	RUN(test_a_ring_that_fills_up_wakes_the_thread);
	RUN(test_a_stream_drains_by_itself_after_each_attachment);
	RUN(test_the_thread_lives_as_long_as_the_stream);
	RUN(test_the_thread_takes_no_signals);
	RUN(test_sinks_are_kept_by_serial);
	RUN(test_a_drain_says_how_many);
	RUN(test_a_full_ring_drops_and_counts);
	RUN(test_no_descriptors);
	RUN(test_sizes_of_rings);
	return checks_done();
}
