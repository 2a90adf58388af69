// SPDX-License-Identifier: MIT
/* A subscriber's queue: ordered, bounded, and with timeouts. */
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#include "common.h"

static struct lbl_stream *stream;
static struct lbl_queue *queue;

static void set_up(uint32_t capacity)
{
	REQUIRE(!lbl_stream_memory(1 << 16, &stream));
	REQUIRE(!lbl_queue_new(capacity, &queue));
	REQUIRE(!lbl_queue_subscribe(queue, stream));
}

static void tear_down(void)
{
	lbl_queue_free(queue);
	CHECK(stream->refs == 1 && !stream->n_sinks);
	lbl_stream_free(stream);
}

/* Events with the timestamps `from` to `from` + `n` - 1. */
static void feed(uint64_t from, uint32_t n)
{
	struct lbl_event event = closed_event(SECOND, 1);

	for (event.timestamp_ns = from; event.timestamp_ns < from + n; event.timestamp_ns++)
		REQUIRE(!lbl_stream_produce(stream, &event, sizeof(event)));
	CHECK(lbl_stream_drain(stream) >= 0);
}

static bool pops(uint64_t from, uint32_t most, int n)
{
	struct lbl_decoded_event popped[8];
	int i;

	if (lbl_queue_pop(queue, 0, most, popped) != n)
		return false;
	for (i = 0; i < n; i++) {
		if (popped[i].event.timestamp_ns != from + (uint64_t)i ||
		    popped[i].event.port != 80)
			return false;
	}
	return true;
}

static void test_events_come_in_order(void)
{
	uint32_t round;

	set_up(4);
	CHECK(pops(0, 8, 0));
	for (round = 0; round < 10; round++) {
		feed(3 * round, 3);
		CHECK(pops(3 * round, 2, 2));
		CHECK(pops(3 * round + 2, 8, 1));
	}
	CHECK(pops(0, 8, 0) && !lbl_queue_dropped(queue));
	tear_down();
}

static void test_a_full_queue_drops_the_new(void)
{
	set_up(4);
	feed(0, 4);
	CHECK(!lbl_queue_dropped(queue));
	feed(4, 3);
	CHECK(lbl_queue_dropped(queue) == 3);
	CHECK(pops(0, 1, 1));
	feed(10, 2);
	CHECK(lbl_queue_dropped(queue) == 4);
	CHECK(pops(1, 3, 3) && pops(10, 8, 1));
	tear_down();
}

/* A malformed record is neither queued nor counted as dropped. */
static void test_malformed_records_are_no_events(void)
{
	uint8_t record[40] = { 0 };

	set_up(1);
	REQUIRE(!lbl_stream_produce(stream, record, sizeof(record)));
	CHECK(lbl_stream_drain(stream) >= 0 && pops(0, 8, 0));
	feed(7, 1);
	REQUIRE(!lbl_stream_produce(stream, record, sizeof(record)));
	CHECK(lbl_stream_drain(stream) >= 0 && !lbl_queue_dropped(queue) && pops(7, 8, 1));
	tear_down();
}

static uint64_t waiting;

static void *pop_one(void *arg)
{
	struct lbl_decoded_event popped;

	__atomic_store_n(&waiting, 1, __ATOMIC_RELEASE);
	return (void *)(intptr_t)lbl_queue_pop(queue, *(int *)arg, 1, &popped);
}

/* With a long timeout, and without one. */
static void test_a_reader_is_woken(void)
{
	int timeouts[] = { -1, 1000000 }, i;

	for (i = 0; i < 2; i++) {
		uint64_t start = now_ns(CLOCK_MONOTONIC);
		pthread_t reader;
		void *popped;

		set_up(4);
		waiting = 0;
		REQUIRE(!pthread_create(&reader, NULL, pop_one, &timeouts[i]));
		CHECK(comes_to(&waiting, 1));
		feed(1, 1);
		pthread_join(reader, &popped);
		CHECK((intptr_t)popped == 1 && now_ns(CLOCK_MONOTONIC) - start < 100 * SECOND);
		tear_down();
	}
}

static void test_a_reader_waits_as_long_as_it_says(void)
{
	struct lbl_decoded_event popped;
	struct timespec until;
	int ms;

	set_up(4);
	deadline = &until;
	for (ms = 0; ms <= 3000; ms++) {
		uint64_t start = now_ns(CLOCK_MONOTONIC) + (uint64_t)ms * 1000000, at;

		CHECK(lbl_queue_pop(queue, ms, 1, &popped) == 0);
		at = (uint64_t)until.tv_sec * SECOND + (uint64_t)until.tv_nsec;
		CHECK(until.tv_nsec >= 0 && until.tv_nsec < (long)SECOND);
		CHECK(at >= start && at <= now_ns(CLOCK_MONOTONIC) + (uint64_t)ms * 1000000);
	}
	deadline = NULL;
	CHECK(lbl_queue_pop(queue, 1, 1, &popped) == 0);
	tear_down();
}

/* ---- the fd ---- */

static bool is_readable(int fd)
{
	struct pollfd wanted = { .fd = fd, .events = POLLIN };

	return poll(&wanted, 1, 0) == 1;
}

/* Whoever asks for the fd, before or after the events, finds it readable while some wait. */
static void test_the_fd_is_readable_while_events_wait(void)
{
	int early, late;

	set_up(4);
	early = lbl_queue_fd(queue);
	CHECK(early >= 0 && lbl_queue_fd(queue) == early && !is_readable(early));
	feed(0, 2);
	CHECK(is_readable(early) && lbl_queue_waiting(queue) == 2);
	feed(2, 1);
	CHECK(pops(0, 2, 2) && is_readable(early));
	CHECK(pops(2, 1, 1) && !is_readable(early) && !lbl_queue_waiting(queue));
	feed(3, 1);
	CHECK(is_readable(early));
	tear_down();

	set_up(4);
	feed(0, 1);
	late = lbl_queue_fd(queue);
	CHECK(is_readable(late));
	CHECK(pops(0, 1, 1) && !is_readable(late));
	tear_down();
}

/* A reader that takes the signal itself does not stop those to come. */
static void test_the_fd_survives_being_read(void)
{
	eventfd_t taken;
	int fd;

	set_up(4);
	fd = lbl_queue_fd(queue);
	feed(0, 1);
	CHECK(!eventfd_read(fd, &taken) && taken == 1);
	CHECK(pops(0, 1, 1));
	feed(1, 1);
	CHECK(is_readable(fd));
	tear_down();
}

static void test_no_fd_is_left(void)
{
	struct rlimit old, none;

	set_up(4);
	REQUIRE(!getrlimit(RLIMIT_NOFILE, &old));
	none = (struct rlimit){ 0, old.rlim_max };
	REQUIRE(!setrlimit(RLIMIT_NOFILE, &none));
	CHECK(lbl_queue_fd(queue) == -EMFILE);
	REQUIRE(!setrlimit(RLIMIT_NOFILE, &old));
	CHECK(lbl_queue_fd(queue) >= 0);
	tear_down();
}

/* ---- closing ---- */

/* Its fd is readable for good, it takes no more events, and the stream is free. */
static void test_a_closed_queue_is_empty(void)
{
	int fd;

	set_up(4);
	fd = lbl_queue_fd(queue);
	feed(0, 6);
	lbl_queue_close(queue);
	lbl_queue_close(queue);
	CHECK(stream->refs == 1 && !stream->n_sinks);
	feed(6, 1);
	CHECK(is_readable(fd) && !lbl_queue_waiting(queue) && lbl_queue_dropped(queue) == 2);
	CHECK(pops(0, 8, 0) && is_readable(fd) && lbl_queue_fd(queue) == fd);
	tear_down();
}

static void test_closing_wakes_readers(void)
{
	int timeouts[] = { -1, 1000000 }, i;

	for (i = 0; i < 2; i++) {
		uint64_t start = now_ns(CLOCK_MONOTONIC);
		pthread_t reader;
		void *popped;

		set_up(4);
		waiting = 0;
		REQUIRE(!pthread_create(&reader, NULL, pop_one, &timeouts[i]));
		CHECK(comes_to(&waiting, 1));
		lbl_queue_close(queue);
		pthread_join(reader, &popped);
		CHECK((intptr_t)popped == 0 && now_ns(CLOCK_MONOTONIC) - start < 100 * SECOND);
		tear_down();
	}
}

static void test_bounds(void)
{
	uint32_t n;

	CHECK(lbl_queue_new(0, &queue) == -EINVAL);
	CHECK(lbl_queue_new(LBL_QUEUE_EVENTS_MAX + 1U, &queue) == -EINVAL);
	for (n = 1; n <= 2; n++) {
		memory_ends_at = n;
		CHECK(lbl_queue_new(1, &queue) == -ENOMEM);
		no_memory = false;
	}
	lbl_queue_free(NULL);
}

int main(void)
{
	RUN(test_events_come_in_order);
	RUN(test_a_full_queue_drops_the_new);
	RUN(test_malformed_records_are_no_events);
	RUN(test_a_reader_is_woken);
	RUN(test_a_reader_waits_as_long_as_it_says);
	RUN(test_the_fd_is_readable_while_events_wait);
	RUN(test_the_fd_survives_being_read);
	RUN(test_no_fd_is_left);
	RUN(test_a_closed_queue_is_empty);
	RUN(test_closing_wakes_readers);
	RUN(test_bounds);
	return checks_done();
}
