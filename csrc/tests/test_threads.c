// SPDX-License-Identifier: MIT
/* All threads at work at once, with no event lost: for ThreadSanitizer, too. */
#include <sched.h>

#include "common.h"
#include "track/expiry.h"
#include "track/removal.h"

enum { RINGS = 2, RECORDERS = 2, EACH = 20000 };

static struct lbl_tracker *kept, *reset;
static struct lbl_stream *streams[RINGS];
static bool done;

static void *produce_on(void *arg)
{
	struct lbl_stream *stream = arg;
	int i;

	for (i = 0; i < EACH; i++) {
		struct lbl_event event =
			closed_event(SECOND * (uint64_t)(1 + i % 5), (uint8_t)(i % 7));

		if (lbl_stream_produce(stream, &event, sizeof(event)))
			sched_yield();
	}
	return NULL;
}

static void *observe_on(void *arg)
{
	static const uint8_t addr[16] = { [10] = 0xff, [11] = 0xff, [12] = 10, [15] = 1 };
	struct lbl_tracker *tracker = arg;
	struct lbl_backend *backend;
	int name = lbl_tracker_name(tracker, "web", 3), i;

	REQUIRE(name > 0);
	REQUIRE(!lbl_tracker_backend(tracker, LBL_LIFETIME, (uint16_t)name, addr, 80, &backend));
	for (i = 0; i < EACH; i++)
		CHECK(!lbl_backend_observe(backend, 0.001 * (i % 1000)));
	lbl_backend_free(backend);
	return NULL;
}

static uint64_t total(struct lbl_tracker *tracker)
{
	struct lbl_snapshot *snapshot;
	uint64_t n = 0;
	size_t i;

	REQUIRE(!lbl_tracker_snapshot(tracker, LBL_LIFETIME, &snapshot));
	for (i = 0; i < snapshot->n_rows; i++)
		n += snapshot->rows[i].count;
	lbl_snapshot_free(snapshot);
	return n;
}

static void *scrape_on(void *arg)
{
	struct lbl_tracker *tracker = arg;
	struct lbl_tracker_stats stats;
	uint64_t last = 0, n;

	while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE)) {
		n = total(tracker);
		CHECK(n >= last);
		last = n;
		CHECK(!lbl_tracker_stats(tracker, &stats) && all_accounted(&stats));
	}
	return NULL;
}

static void *reset_on(void *arg)
{
	while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE)) {
		lbl_tracker_reset(arg);
		total(arg);
		sched_yield();
	}
	return NULL;
}

/* Remove backends of events and of recorders, while both add them again. */
static void *remove_on(void *arg)
{
	uint8_t addr[16] = { [10] = 0xff, [11] = 0xff, [12] = 10 };
	uint8_t i;

	while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE)) {
		for (i = 0; i < 7; i++) {
			addr[15] = i;
			CHECK(lbl_tracker_remove(arg, 1, addr, 80) >= 0);
		}
		sched_yield();
	}
	return NULL;
}

static void *pop_on(void *arg)
{
	struct lbl_queue *queue = arg;
	struct lbl_decoded_event seen[16];
	uint64_t n = 0;
	int popped;

	do {
		popped = lbl_queue_pop(queue, 10, 16, seen);
		n += (uint64_t)popped;
	} while (popped || !__atomic_load_n(&done, __ATOMIC_ACQUIRE));
	return (void *)(uintptr_t)n;
}

static void check_totals(struct lbl_queue *queue, uint64_t popped)
{
	struct lbl_tracker_stats stats;
	struct lbl_stream_stats of;
	uint64_t received;

	of = read_streams(streams, RINGS);
	CHECK(of.produced == of.received + of.dropped + of.in_ring && !of.in_ring);
	received = of.received;
	CHECK(of.produced == RINGS * EACH);
	CHECK(!lbl_tracker_stats(kept, &stats) && all_accounted(&stats));
	CHECK(stats.outcomes.recorded == received && stats.events.produced == of.produced);
	CHECK(stats.outcomes.observed == RECORDERS * EACH);
	CHECK(total(kept) == received + RECORDERS * EACH);
	CHECK(!lbl_tracker_stats(reset, &stats) && all_accounted(&stats));
	CHECK(stats.outcomes.recorded == received);
	CHECK(total(reset) <= received);
	CHECK(popped + lbl_queue_dropped(queue) == received);
}

static void test_nothing_is_lost(void)
{
	pthread_t workers[RINGS + RECORDERS], readers[5];
	struct lbl_queue *queue;
	void *popped;
	int i;

	/* Fewer than the events have: the overflow backend is at work too. */
	kept = make_tracker(5, true);
	reset = make_tracker(100, false);
	REQUIRE(!lbl_tracker_expire(reset, 1)); /* at work all the time */
	REQUIRE(!lbl_queue_new(100, &queue));
	for (i = 0; i < RINGS; i++) {
		REQUIRE(!lbl_stream_memory(1 << 16, &streams[i]));
		REQUIRE(!lbl_queue_subscribe(queue, streams[i]));
	}
	REQUIRE(!start_on(kept, streams, RINGS, "web"));
	REQUIRE(!start_on(reset, streams, RINGS, "web"));
	REQUIRE(!pthread_create(&readers[0], NULL, scrape_on, kept));
	REQUIRE(!pthread_create(&readers[1], NULL, scrape_on, kept));
	REQUIRE(!pthread_create(&readers[2], NULL, reset_on, reset));
	REQUIRE(!pthread_create(&readers[3], NULL, remove_on, kept));
	REQUIRE(!pthread_create(&readers[4], NULL, pop_on, queue));
	for (i = 0; i < RINGS; i++)
		REQUIRE(!pthread_create(&workers[i], NULL, produce_on, streams[i]));
	for (i = 0; i < RECORDERS; i++)
		REQUIRE(!pthread_create(&workers[RINGS + i], NULL, observe_on, kept));
	for (i = 0; i < RINGS + RECORDERS; i++)
		pthread_join(workers[i], NULL);
	for (i = 0; i < RINGS; i++)
		CHECK(lbl_stream_drain(streams[i]) >= 0);
	__atomic_store_n(&done, true, __ATOMIC_RELEASE);
	for (i = 0; i < 4; i++)
		pthread_join(readers[i], NULL);
	pthread_join(readers[4], &popped);
	lbl_tracker_stop(kept);
	lbl_tracker_stop(reset);
	check_totals(queue, (uint64_t)(uintptr_t)popped);

	lbl_queue_free(queue);
	for (i = 0; i < RINGS; i++)
		lbl_stream_free(streams[i]);
	lbl_tracker_free(kept);
	lbl_tracker_free(reset);
}

enum { NAMES = 1000, NAMERS = 4 };

static pthread_barrier_t all_ready;

static void *name_proxies(void *arg)
{
	struct lbl_tracker *tracker = arg;
	char text[16];
	size_t len;
	int i;

	for (i = 1; i <= NAMES; i++) {
		int number;

		len = (size_t)snprintf(text, sizeof(text), "%d", i);
		pthread_barrier_wait(&all_ready);
		number = lbl_tracker_find_name(tracker, text, len);
		CHECK(number == i || number == -ENOENT);
		number = lbl_tracker_name(tracker, text, len);
		CHECK(number == i && lbl_tracker_name_text(tracker, (uint16_t)number, &len));
	}
	return NULL;
}

/* The first thread gives a name its number; the other threads get the same. */
static void test_names_are_given_once(void)
{
	struct lbl_tracker *tracker = make_tracker(1, false);
	pthread_t threads[NAMERS];
	int i;

	REQUIRE(!pthread_barrier_init(&all_ready, NULL, NAMERS));
	for (i = 0; i < NAMERS; i++)
		REQUIRE(!pthread_create(&threads[i], NULL, name_proxies, tracker));
	for (i = 0; i < NAMERS; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&all_ready);
	CHECK(lbl_tracker_name(tracker, "new", 3) == NAMES + 1);
	lbl_tracker_free(tracker);
}

int main(void)
{
	RUN(test_names_are_given_once);
	RUN(test_nothing_is_lost);
	return checks_done();
}
