// SPDX-License-Identifier: MIT
/*
 * The three identities of each tracker, over starts, stops, forks and other users of its streams.
 */
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

enum { RINGS = 2, ROUNDS = 200 };

static struct lbl_stream *streams[RINGS];
static bool done;

static bool is_accounted(struct lbl_tracker *tracker)
{
	struct lbl_tracker_stats stats;

	return !lbl_tracker_stats(tracker, &stats) && all_accounted(&stats);
}

static void open_streams(void)
{
	int i;

	__atomic_store_n(&done, false, __ATOMIC_RELEASE);
	for (i = 0; i < RINGS; i++)
		REQUIRE(!lbl_stream_memory(1 << 14, &streams[i]));
}

static void free_streams(void)
{
	int i;

	for (i = 0; i < RINGS; i++)
		lbl_stream_free(streams[i]);
}

/* Produce all kinds of records, faster than the ring is drained. */
static void *produce_on(void *arg)
{
	struct lbl_event event = closed_event(SECOND, 1);
	struct lbl_stream *stream = arg;
	uint32_t n;

	for (n = 0; !__atomic_load_n(&done, __ATOMIC_ACQUIRE); n++) {
		event.type = (uint8_t)(n % 5); /* including unknown types */
		event.created_ns = n % 7 ? SECOND : 0;
		event.addr[15] = (uint8_t)(n % 9);
		lbl_stream_produce(stream, &event, n % 11 ? sizeof(event) : 40);
		if (n % 64 == 0)
			sched_yield();
	}
	return NULL;
}

static void *start_and_stop(void *arg)
{
	struct lbl_tracker *tracker = arg;
	int i;

	for (i = 0; i < ROUNDS; i++) {
		int err = start_on(tracker, streams, 1 + (size_t)(i % RINGS), "web");

		CHECK(!err || err == -EALREADY);
		CHECK(is_accounted(tracker));
		if (i % 3)
			lbl_tracker_stop(tracker);
		CHECK(is_accounted(tracker));
	}
	return NULL;
}

static void *read_on(void *arg)
{
	struct lbl_tracker **trackers = arg;

	while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE)) {
		CHECK(is_accounted(trackers[0]) && is_accounted(trackers[1]));
		sched_yield();
	}
	return NULL;
}

/* Leave `n` events in the ring, the first one not submitted. Returns its header. */
static uint32_t *hold_back(struct lbl_stream *stream, uint32_t n)
{
	struct lbl_event event = closed_event(SECOND, 1);
	uint32_t *header, i;

	pthread_mutex_lock(&stream->producing);
	pthread_mutex_lock(&stream->lock);
	header = (uint32_t *)(uintptr_t)(stream->ring.data +
					 (*stream->ring.producer_pos & stream->ring.mask));
	for (i = 0; i < n; i++)
		REQUIRE(!lbl_ring_produce(&stream->ring, &event, sizeof(event)));
	*header |= LBL_RING_BUSY;
	stream->produced.produced += n;
	pthread_mutex_unlock(&stream->lock);
	pthread_mutex_unlock(&stream->producing);
	return header;
}

/* Fill the ring until it drops an event, which attached trackers count. */
static void overfill(struct lbl_stream *stream)
{
	uint32_t *held = hold_back(stream, 1);
	struct lbl_event event = closed_event(SECOND, 1);

	while (!lbl_stream_produce(stream, &event, sizeof(event)))
		;
	__atomic_and_fetch(held, ~LBL_RING_BUSY, __ATOMIC_RELEASE);
}

static void test_starts_and_stops_under_traffic(void)
{
	struct lbl_tracker *trackers[2] = { make_tracker(5, true), make_tracker(100, false) };
	pthread_t producers[RINGS], starters[2], reader;
	struct lbl_queue *queue;
	struct lbl_tracker_stats stats;
	int i;

	open_streams();
	REQUIRE(!lbl_queue_new(10, &queue));
	for (i = 0; i < RINGS; i++) {
		REQUIRE(!lbl_queue_subscribe(queue, streams[i]));
		REQUIRE(!pthread_create(&producers[i], NULL, produce_on, streams[i]));
	}
	REQUIRE(!pthread_create(&reader, NULL, read_on, trackers));
	for (i = 0; i < 2; i++)
		REQUIRE(!pthread_create(&starters[i], NULL, start_and_stop, trackers[i]));
	for (i = 0; i < 2; i++)
		pthread_join(starters[i], NULL);
	__atomic_store_n(&done, true, __ATOMIC_RELEASE);
	for (i = 0; i < RINGS; i++)
		pthread_join(producers[i], NULL);
	pthread_join(reader, NULL);
	for (i = 0; i < 2; i++) {
		lbl_tracker_stop(trackers[i]);
		REQUIRE(!start_on(trackers[i], streams, RINGS, "web"));
		overfill(streams[0]);
		lbl_tracker_stop(trackers[i]);
		CHECK(!lbl_tracker_stats(trackers[i], &stats) && all_accounted(&stats));
		CHECK(stats.outcomes.recorded && stats.events.dropped && !stats.events.in_ring);
		lbl_tracker_free(trackers[i]);
	}
	lbl_queue_free(queue);
	free_streams();
}

static void produce(struct lbl_stream *stream, int n)
{
	struct lbl_event event = closed_event(SECOND, 1);

	while (n--)
		REQUIRE(!lbl_stream_produce(stream, &event, sizeof(event)));
}

static struct lbl_stream_stats events_of(struct lbl_tracker *tracker)
{
	struct lbl_tracker_stats stats;

	REQUIRE(!lbl_tracker_stats(tracker, &stats));
	CHECK(all_accounted(&stats));
	return stats.events;
}

/* Events received or dropped before the start are not this tracker's. */
static void test_a_tracker_counts_from_its_start_to_its_stop(void)
{
	struct lbl_tracker *first = make_tracker(10, false), *second = make_tracker(10, false);
	struct lbl_event event = closed_event(SECOND, 1);
	struct lbl_stream_stats events;

	open_streams();
	REQUIRE(!start_on(first, streams, 1, "web"));
	produce(streams[0], 100);
	while (!lbl_stream_produce(streams[0], &event, sizeof(event)))
		;
	lbl_stream_drain(streams[0]);
	REQUIRE(!start_on(second, streams, 1, "web"));
	events = events_of(second);
	CHECK(!events.produced && !events.received && !events.dropped);
	produce(streams[0], 10);
	CHECK(events_of(second).produced == 10);
	lbl_tracker_stop(second);
	produce(streams[0], 5);
	lbl_stream_drain(streams[0]);
	events = events_of(second);
	CHECK(events.produced == 10 && events.received == 10);
	REQUIRE(!start_on(second, streams, 1, "web"));
	produce(streams[0], 3);
	lbl_tracker_stop(second);
	CHECK(events_of(second).received == 13);
	events = events_of(first);
	CHECK(events.dropped == 1 && events.produced == events.received + 1);
	lbl_tracker_free(first);
	lbl_tracker_free(second);
	free_streams();
}

/* Records that a busy one holds back at a stop were told as produced, so they stay in the sum. */
static void test_nothing_goes_down_at_a_stop(void)
{
	struct lbl_tracker *tracker = make_tracker(10, false);
	struct lbl_stream_stats before, events;
	uint32_t *held;

	open_streams();
	REQUIRE(!start_on(tracker, streams, RINGS, "web"));
	produce(streams[0], 20);
	lbl_stream_drain(streams[0]);
	held = hold_back(streams[0], 5);
	before = events_of(tracker);
	CHECK(before.produced == 25 && before.in_ring == 5);
	produce(streams[0], 3); /* told to nobody */
	lbl_tracker_stop(tracker);
	events = events_of(tracker);
	CHECK(events.produced == 25 && events.received == 20 && events.in_ring == 5);
	__atomic_and_fetch(held, ~LBL_RING_BUSY, __ATOMIC_RELEASE);
	REQUIRE(!start_on(tracker, streams, RINGS, "web"));
	CHECK(events_of(tracker).produced == 28);
	lbl_tracker_stop(tracker);
	events = events_of(tracker);
	CHECK(events.produced == 28 && events.received == 28 && !events.in_ring);
	lbl_tracker_free(tracker);
	free_streams();
}

static void check_child(struct lbl_tracker *tracker, uint64_t received)
{
	CHECK(!lbl_tracker_running(tracker));
	CHECK(events_of(tracker).received == received && !events_of(tracker).in_ring);
	lbl_tracker_stop(tracker);
	CHECK(events_of(tracker).produced == received);
}

/* ThreadSanitizer does not support threads created in a child of fork(). */
#ifndef LBL_TSAN
static void check_new_start(struct lbl_tracker *tracker, uint64_t received)
{
	struct lbl_tracker_stats stats;

	free_streams();
	open_streams();
	REQUIRE(!start_on(tracker, streams, RINGS, "web"));
	produce(streams[1], 7);
	lbl_tracker_stop(tracker);
	CHECK(!lbl_tracker_stats(tracker, &stats) && stats.outcomes.recorded == received + 7);
	CHECK(events_of(tracker).produced == received + 7);
}
#endif

static uint64_t received_by_all(void)
{
	uint64_t received = 0;
	int i;

	for (i = 0; i < RINGS; i++)
		received += READ_ONCE(&streams[i]->counts.received);
	return received;
}

/*
 * Wait until the drain threads have drained `n` events. A fork while a thread is still being made
 * would leave AddressSanitizer's own allocator locked in the child.
 */
static void wait_for_threads(uint64_t n)
{
	while (received_by_all() < n)
		sched_yield();
}

/* The ring's contents belong to the parent; the child may start on rings of its own. */
static void test_a_child_keeps_what_was_received(void)
{
	struct lbl_tracker *tracker = make_tracker(10, true);
	uint32_t *held;
	int status;
	pid_t pid;

	open_streams();
	REQUIRE(!start_on(tracker, streams, RINGS, "web"));
	produce(streams[0], 19);
	produce(streams[1], 1);
	wait_for_threads(20);
	held = hold_back(streams[0], 5);
	fflush(stdout);
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid) {
		uint64_t received = received_by_all();

		check_child(tracker, received);
#ifndef LBL_TSAN
		check_new_start(tracker, received);
#endif
		_exit(checks_failed != 0);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && !WEXITSTATUS(status));
	CHECK(events_of(tracker).in_ring == 5);
	__atomic_and_fetch(held, ~LBL_RING_BUSY, __ATOMIC_RELEASE);
	lbl_tracker_stop(tracker);
	CHECK(events_of(tracker).received == 25);
	lbl_tracker_free(tracker);
	free_streams();
}

/* A failed start leaves nothing behind: no attached sink, no counted event. */
static void test_a_start_is_all_or_nothing(void)
{
	struct lbl_tracker *tracker = make_tracker(10, true), *others[LBL_SINKS_MAX];
	struct lbl_stream *twice[2];
	uint32_t i;

	open_streams();
	twice[0] = twice[1] = streams[0];
	CHECK(start_on(tracker, twice, 2, "web") == -EBUSY);
	for (i = 0; i < LBL_SINKS_MAX; i++) {
		others[i] = make_tracker(10, false);
		REQUIRE(!start_on(others[i], &streams[1], 1, "web"));
	}
	CHECK(start_on(tracker, streams, RINGS, "web") == -ENOSPC);
	CHECK(!lbl_tracker_running(tracker) && streams[0]->n_sinks == 0);
	CHECK(start_on(others[0], streams, RINGS, "web") == -EALREADY);
	lbl_tracker_stop(others[0]);
	CHECK(!start_on(tracker, streams, RINGS, "web"));
	produce(streams[1], 4);
	lbl_tracker_stop(tracker);
	CHECK(events_of(tracker).received == 4 && events_of(others[0]).received == 0);
	for (i = 0; i < LBL_SINKS_MAX; i++)
		lbl_tracker_free(others[i]);
	lbl_tracker_free(tracker);
	free_streams();
}

/* Two streams feed the same two queues, which subscribed in different orders: no deadlock. */
static void test_shared_sinks_are_locked_in_one_order(void)
{
	struct lbl_queue *queues[2];
	pthread_t producers[RINGS];
	int i;

	open_streams();
	for (i = 0; i < 2; i++)
		REQUIRE(!lbl_queue_new(10, &queues[i]));
	for (i = 0; i < 2; i++) {
		REQUIRE(!lbl_queue_subscribe(queues[i], streams[i]));
		REQUIRE(!pthread_create(&producers[i], NULL, produce_on, streams[i]));
	}
	for (i = 0; i < 2; i++)
		REQUIRE(!lbl_queue_subscribe(queues[i], streams[1 - i]));
	for (i = 0; i < 1000; i++)
		CHECK(lbl_stream_drain(streams[i % 2]) >= 0);
	__atomic_store_n(&done, true, __ATOMIC_RELEASE);
	for (i = 0; i < 2; i++)
		pthread_join(producers[i], NULL);
	for (i = 0; i < 2; i++)
		lbl_queue_free(queues[i]);
	free_streams();
}

/* What others dropped before, and what waits in the rings, is not counted by a start that fails. */
static void test_a_start_that_fails_counts_nothing(void)
{
	struct lbl_tracker *tracker = make_tracker(10, false), *others[LBL_SINKS_MAX];
	struct lbl_event event = closed_event(SECOND, 1);
	struct lbl_stream_stats events;
	uint32_t i;

	open_streams();
	while (!lbl_stream_produce(streams[1], &event, sizeof(event)))
		;
	for (i = 0; i < LBL_SINKS_MAX; i++) {
		others[i] = make_tracker(10, false);
		REQUIRE(!start_on(others[i], &streams[1], 1, "web"));
	}
	produce(streams[0], 5);
	CHECK(start_on(tracker, streams, RINGS, "web") == -ENOSPC);
	events = events_of(tracker);
	CHECK(!events.produced && !events.received && !events.dropped);
	for (i = 0; i < LBL_SINKS_MAX; i++)
		lbl_tracker_free(others[i]);
	lbl_tracker_free(tracker);
	free_streams();
}

int main(void)
{
	RUN(test_a_tracker_counts_from_its_start_to_its_stop);
	RUN(test_nothing_goes_down_at_a_stop);
	RUN(test_a_child_keeps_what_was_received);
	RUN(test_a_start_is_all_or_nothing);
	RUN(test_a_start_that_fails_counts_nothing);
	RUN(test_shared_sinks_are_locked_in_one_order);
	RUN(test_starts_and_stops_under_traffic);
	return checks_done();
}
