// SPDX-License-Identifier: MIT
/*
 * Ledgers over rings and counters maps that are not equally old, are replaced, go down and are
 * shared. The rings are in memory, but their producers count in maps.
 */
#include <sys/wait.h>

#include "common.h"

/* A producer: its ring, whose stream does not count by itself, and its counters map. */
struct producer {
	struct lbl_stream *stream;
	int fd;
	struct lbl_counters counters;
};

static void count(struct producer *producer, uint64_t produced, uint64_t dropped)
{
	struct lbl_counters now = producer->counters;

	now.produced += produced;
	now.dropped += dropped;
	producer->counters = now;
	REQUIRE(pwrite(producer->fd, &now, sizeof(now), 0) == sizeof(now));
}

static void set_counters(struct producer *producer, uint64_t produced, uint64_t dropped)
{
	producer->counters = (struct lbl_counters){ 0 };
	count(producer, produced, dropped);
}

static struct producer make_producer(uint64_t produced, uint64_t dropped)
{
	struct producer made = { .fd = make_counters() };

	REQUIRE(!lbl_stream_memory(1 << 14, &made.stream));
	drain_by_hand(made.stream);
	set_counters(&made, produced, dropped);
	REQUIRE(!lbl_counted_open(made.fd, &made.stream->counters));
	lbl_counted_begin_use(made.stream->counters);
	return made;
}

static void end_producer(struct producer *producer)
{
	lbl_stream_free(producer->stream);
	close(producer->fd);
}

/* Count first, as lbl_emit() does. */
static void produce(struct producer *producer, uint32_t n)
{
	struct lbl_event event = closed_event(SECOND, 1);

	while (n--) {
		int err;

		count(producer, 1, 0);
		pthread_mutex_lock(&producer->stream->producing);
		err = lbl_ring_produce(&producer->stream->ring, &event, sizeof(event));
		pthread_mutex_unlock(&producer->stream->producing);
		if (err)
			count(producer, 0, 1);
	}
}

/* Give the stream a new map, and its ring too as far as the counts go. */
static void replace(struct producer *producer, bool never_consumed)
{
	struct lbl_stream *stream = producer->stream;
	struct lbl_counted *before = stream->counters, *after;
	int fd = make_counters();

	close(producer->fd);
	producer->fd = fd;
	set_counters(producer, 50, 20);
	REQUIRE(!lbl_counted_open(fd, &after));
	pthread_mutex_lock(&stream->lock);
	lbl_counted_end_use(before);
	lbl_counted_begin_use(after);
	stream->counters = after;
	stream->never_consumed = never_consumed;
	stream->counts.replaced++;
	pthread_mutex_unlock(&stream->lock);
	lbl_counted_unref(before);
}

static struct lbl_ledger *open_ledger(struct lbl_stream *stream)
{
	struct lbl_ledger *ledger;

	REQUIRE(!lbl_ledger_new(&stream, 1, &ledger));
	return ledger;
}

static struct lbl_stream_stats read_ledger(struct lbl_ledger *ledger)
{
	struct lbl_stream_stats stats;

	REQUIRE(!lbl_ledger_read(ledger, &stats));
	return stats;
}

static bool is_told(struct lbl_ledger *ledger, uint64_t produced, uint64_t received,
		    uint64_t dropped, uint64_t in_ring)
{
	struct lbl_stream_stats stats = read_ledger(ledger);

	return stats.counted && stats.produced == produced && stats.received == received &&
	       stats.dropped == dropped && stats.in_ring == in_ring;
}

static void test_a_map_has_one_count_per_process(void)
{
	struct lbl_counted_reading reading;
	struct lbl_counted *first, *second;
	int fd = make_counters(), copy = dup(fd), other = make_counters();

	REQUIRE(!lbl_counted_open(fd, &first) && !lbl_counted_open(copy, &second));
	CHECK(first == second);
	CHECK(!lbl_counted_read(first, &reading) && !reading.users);
	lbl_counted_begin_use(first);
	lbl_counted_begin_use(second);
	CHECK(!lbl_counted_read(first, &reading) && reading.users == 2);
	lbl_counted_end_use(first);
	lbl_counted_unref(first);
	CHECK(!lbl_counted_read(second, &reading) && reading.users == 1);
	lbl_counted_end_use(second);
	lbl_counted_unref(second);
	lbl_counted_begin_use(NULL);
	lbl_counted_end_use(NULL);
	REQUIRE(!lbl_counted_open(other, &second));
	lbl_counted_unref(second);
	lbl_counted_unref(NULL);
	lbl_counted_unref(lbl_counted_ref(NULL));
	REQUIRE(!ftruncate(other, 8));
	CHECK(lbl_counted_open(other, &second) == -EINVAL);
	no_memory = true;
	CHECK(lbl_counted_open(fd, &second) == -ENOMEM);
	no_memory = false;
	close(fd);
	close(copy);
	close(other);
}

static void test_sums_of_a_map_never_go_down(void)
{
	static const struct lbl_counters steps[] = { { 30, 10 }, { 36, 11 }, { 0, 0 },	{ 6, 1 },
						     { 6, 0 },	 { 6, 0 },   { 5, 50 }, { 5, 51 } };
	static const struct lbl_counters sums[] = {
		{ 30, 10 }, { 36, 11 }, { 36, 11 }, { 42, 12 },
		{ 48, 12 }, { 48, 12 }, { 53, 62 }, { 53, 63 }
	};
	struct lbl_counted_reading reading;
	struct producer web = make_producer(0, 0);
	size_t i;

	for (i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		set_counters(&web, steps[i].produced, steps[i].dropped);
		CHECK(!lbl_counted_read(web.stream->counters, &reading));
		CHECK(reading.sums.produced == sums[i].produced);
		CHECK(reading.sums.dropped == sums[i].dropped);
	}
	CHECK(reading.restarts == 3);
	end_producer(&web);
}

/* A map may hold any numbers: sums that no 64 bits hold stop at the largest. */
static void test_sums_of_a_map_do_not_overflow(void)
{
	static const struct lbl_counters steps[] = {
		{ UINT64_MAX - 1, 3 }, { 5, UINT64_MAX }, { 4, 0 }, { 9, 9 }, { 8, 8 }
	};
	struct lbl_counted_reading reading;
	struct producer web = make_producer(0, 0);
	size_t i;

	for (i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		set_counters(&web, steps[i].produced, steps[i].dropped);
		CHECK(!lbl_counted_read(web.stream->counters, &reading));
		CHECK(reading.sums.produced == (i ? UINT64_MAX : UINT64_MAX - 1));
		CHECK(reading.sums.dropped == (i ? UINT64_MAX : 3));
	}
	CHECK(reading.restarts == 3);
	end_producer(&web);
}

static void test_counts_start_with_the_ledger(void)
{
	struct producer web = make_producer(1000, 7);
	struct lbl_ledger *first, *second;

	produce(&web, 5);
	first = open_ledger(web.stream);
	CHECK(is_told(first, 5, 0, 0, 5));
	lbl_stream_drain(web.stream);
	produce(&web, 3);
	count(&web, 2, 2);
	CHECK(is_told(first, 10, 5, 2, 3));
	second = open_ledger(web.stream);
	CHECK(is_told(second, 8, 5, 0, 3)); /* received is the stream's */
	count(&web, 1, 0); /* lost, and not counted as such */
	CHECK(read_ledger(first).produced == 11 && read_ledger(second).produced == 9);
	lbl_ledger_free(first);
	lbl_ledger_free(second);
	lbl_ledger_free(NULL);
	end_producer(&web);
}

static void test_a_map_that_goes_down(void)
{
	struct producer web = make_producer(30, 10);
	struct lbl_ledger *ledger = open_ledger(web.stream);
	int i;

	for (i = 1; i <= 2; i++) {
		produce(&web, 5);
		count(&web, 1, 1);
		CHECK(is_told(ledger, 6 * i, 0, i, 5 * i));
		set_counters(&web, 0, 0);
		CHECK(is_told(ledger, 6 * i, 0, i, 5 * i));
	}
	produce(&web, 4);
	CHECK(is_told(ledger, 16, 0, 2, 14));
	produce(&web, 3);
	set_counters(&web, 0, 0); /* before anyone looked */
	produce(&web, 2);
	CHECK(is_told(ledger, 21, 0, 2, 19));
	lbl_ledger_free(ledger);
	end_producer(&web);
}

/* What was lost uncounted stays visible when a map goes down. */
static void test_a_sum_that_is_open_stays_so(void)
{
	struct producer web = make_producer(0, 0);
	struct lbl_ledger *ledger = open_ledger(web.stream);

	count(&web, 6, 1);
	CHECK(is_told(ledger, 6, 0, 1, 0));
	set_counters(&web, 0, 0);
	CHECK(is_told(ledger, 6, 0, 1, 0));
	produce(&web, 6);
	CHECK(is_told(ledger, 12, 0, 1, 6));
	lbl_ledger_free(ledger);
	end_producer(&web);
}

/* Drops of the old map count to its end; those of the new one from 0 if its ring is as new. */
static void test_ring_and_counters_are_replaced(void)
{
	int never_consumed;

	for (never_consumed = 0; never_consumed < 2; never_consumed++) {
		struct producer web = make_producer(1000, 100);
		struct lbl_ledger *ledger = open_ledger(web.stream);
		uint64_t drops = 3 + (never_consumed ? 20 : 0);

		produce(&web, 10);
		count(&web, 1, 1);
		CHECK(is_told(ledger, 11, 0, 1, 10));
		lbl_stream_drain(web.stream);
		produce(&web, 4);
		count(&web, 2, 2); /* in the old map, after the last reading */
		replace(&web, never_consumed);
		CHECK(is_told(ledger, 14 + drops, 10, drops, 4));
		produce(&web, 5);
		count(&web, 1, 1);
		CHECK(is_told(ledger, 20 + drops, 10, drops + 1, 9));
		count(&web, 1, 0);
		CHECK(read_ledger(ledger).produced == 21 + drops);
		lbl_ledger_free(ledger);
		end_producer(&web);
	}
}

/* Records of the old ring that were told and did not come are told as in a ring. */
static void test_a_ring_is_replaced_with_records_in_it(void)
{
	struct producer web = make_producer(0, 0);
	struct lbl_ledger *ledger = open_ledger(web.stream);

	produce(&web, 7);
	CHECK(is_told(ledger, 7, 0, 0, 7));
	pthread_mutex_lock(&web.stream->lock);
	web.stream->ring.position = *web.stream->ring.producer_pos;
	*web.stream->ring.consumer_pos = web.stream->ring.position;
	web.stream->counts.replaced++;
	pthread_mutex_unlock(&web.stream->lock);
	CHECK(is_told(ledger, 7, 0, 0, 7));
	produce(&web, 3);
	lbl_stream_drain(web.stream);
	CHECK(is_told(ledger, 10, 3, 0, 7));
	lbl_ledger_free(ledger);
	end_producer(&web);
}

/* While a stream outside the set uses the map, nobody can tell; afterwards counting goes on. */
static void test_another_stream_uses_the_map(void)
{
	struct producer web = make_producer(5, 5);
	struct lbl_ledger *ledger = open_ledger(web.stream);
	struct lbl_stream_stats stats;
	struct lbl_counted *other;

	produce(&web, 4);
	CHECK(is_told(ledger, 4, 0, 0, 4));
	REQUIRE(!lbl_counted_open(web.fd, &other));
	CHECK(is_told(ledger, 4, 0, 0, 4)); /* it may yet be refused the ring */
	lbl_counted_begin_use(other);
	count(&web, 100, 50);
	stats = read_ledger(ledger);
	CHECK(!stats.counted && stats.in_ring == 4);
	produce(&web, 1);
	lbl_counted_end_use(other);
	lbl_counted_unref(other);
	CHECK(is_told(ledger, 5, 0, 0, 5));
	count(&web, 2, 2);
	CHECK(is_told(ledger, 7, 0, 2, 5));
	lbl_ledger_free(ledger);
	end_producer(&web);
}

static void test_one_stream_without_counters_is_enough(void)
{
	struct producer web = make_producer(5, 5);
	struct lbl_ledger *ledger = open_ledger(web.stream);
	struct lbl_counted *counters = web.stream->counters;

	CHECK(read_ledger(ledger).counted == 1);
	web.stream->counters = NULL;
	web.stream->counts.replaced++;
	CHECK(read_ledger(ledger).counted == 1); /* a ring in memory counts by itself */
	lbl_counted_end_use(counters);
	lbl_counted_unref(counters);
	lbl_ledger_free(ledger);
	end_producer(&web);
}

static void test_memory_may_end(void)
{
	struct producer web = make_producer(0, 0);
	struct lbl_ledger *ledger = NULL;
	uint32_t calls;
	int err;

	for (calls = 1; calls < 10; calls++) {
		memory_ends_at = calls;
		err = lbl_ledger_new(&web.stream, 1, &ledger);
		memory_ends_at = 0;
		no_memory = false;
		if (!err)
			break;
		CHECK(err == -ENOMEM && web.stream->refs == 1);
	}
	CHECK(calls == 4); /* ledger, members, maps */
	lbl_ledger_free(ledger);
	end_producer(&web);
}

/* A child's ledger has the counts of the fork, and its new streams have maps of their own. */
static void test_a_child_has_the_counts_of_the_fork(void)
{
	struct producer web = make_producer(30, 10);
	struct lbl_ledger *ledger = open_ledger(web.stream);
	struct lbl_counted *own;
	int status;
	pid_t pid;

	produce(&web, 5);
	lbl_stream_drain(web.stream);
	produce(&web, 2);
	count(&web, 1, 1);
	CHECK(is_told(ledger, 8, 5, 1, 2));
	fflush(stdout);
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid) {
		count(&web, 10, 10);
		CHECK(is_told(ledger, 8, 5, 1, 2));
		REQUIRE(!lbl_counted_open(web.fd, &own));
		CHECK(own != web.stream->counters);
		CHECK(is_told(ledger, 8, 5, 1, 2));
		lbl_counted_unref(own);
		lbl_ledger_free(ledger);
		end_producer(&web);
		fflush(stdout);
		_exit(checks_failed != 0);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && !WEXITSTATUS(status));
	CHECK(is_told(ledger, 18, 5, 11, 2));
	lbl_ledger_free(ledger);
	end_producer(&web);
}

/* ---- under traffic ---- */

static bool done;

static void *produce_on(void *arg)
{
	while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE)) {
		produce(arg, 20);
		sched_yield();
	}
	return NULL;
}

static void *drain_on(void *arg)
{
	struct producer *producer = arg;

	while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE)) {
		lbl_stream_drain(producer->stream);
		sched_yield();
	}
	return NULL;
}

/* `on_the_way` events at most may be counted and not be in the ring. */
static bool is_growing(const struct lbl_stream_stats *now, const struct lbl_stream_stats *before,
		       uint64_t on_the_way)
{
	return now->produced >= before->produced && now->received >= before->received &&
	       now->dropped >= before->dropped &&
	       now->produced - (now->received + now->dropped + now->in_ring) <= on_the_way;
}

/* Ledgers that are opened beside a busy producer find one lost event among thousands. */
static void test_ledgers_opened_under_traffic_are_exact(void)
{
	struct producer web = make_producer(1234, 567);
	struct lbl_stream_stats before[16] = { 0 }, now;
	struct lbl_ledger *ledgers[16];
	pthread_t producer, drainer;
	int i, round;

	__atomic_store_n(&done, false, __ATOMIC_RELEASE);
	REQUIRE(!pthread_create(&producer, NULL, produce_on, &web));
	REQUIRE(!pthread_create(&drainer, NULL, drain_on, &web));
	for (i = 0; i < 16; i++)
		ledgers[i] = open_ledger(web.stream);
	for (round = 0; round < 50; round++) {
		for (i = 0; i < 16; i++) {
			now = read_ledger(ledgers[i]);
			CHECK(now.counted && is_growing(&now, &before[i], 1));
			before[i] = now;
		}
	}
	__atomic_store_n(&done, true, __ATOMIC_RELEASE);
	pthread_join(producer, NULL);
	pthread_join(drainer, NULL);
	for (i = 0; i < 16; i++) {
		now = read_ledger(ledgers[i]);
		CHECK(is_growing(&now, &before[i], 0));
	}
	count(&web, 1, 0);
	for (i = 0; i < 16; i++) {
		now = read_ledger(ledgers[i]);
		CHECK(now.produced == now.received + now.dropped + now.in_ring + 1);
		lbl_ledger_free(ledgers[i]);
	}
	end_producer(&web);
}

static void *produce_and_replace(void *arg)
{
	struct producer *producer = arg;
	int i;

	for (i = 0; i < 300; i++) {
		produce(producer, 20);
		if (i % 3 == 0)
			set_counters(producer, 0, 0);
		else
			replace(producer, i % 2);
		sched_yield();
	}
	__atomic_store_n(&done, true, __ATOMIC_RELEASE);
	return NULL;
}

/* Nothing told goes down, whatever is replaced or set to zero; at rest, the sum holds. */
static void test_replacing_under_traffic(void)
{
	struct producer web = make_producer(1234, 567);
	struct lbl_ledger *ledger = open_ledger(web.stream);
	struct lbl_stream_stats before = { 0 }, now;
	pthread_t producer, drainer;

	__atomic_store_n(&done, false, __ATOMIC_RELEASE);
	REQUIRE(!pthread_create(&producer, NULL, produce_and_replace, &web));
	REQUIRE(!pthread_create(&drainer, NULL, drain_on, &web));
	while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE)) {
		now = read_ledger(ledger);
		CHECK(now.produced >= before.produced && now.received >= before.received);
		CHECK(now.dropped >= before.dropped && now.counted);
		before = now;
	}
	pthread_join(producer, NULL);
	pthread_join(drainer, NULL);
	lbl_stream_drain(web.stream);
	read_ledger(ledger);
	replace(&web, false);
	now = read_ledger(ledger);
	CHECK(now.produced >= before.produced && now.produced >= now.received + now.dropped);
	before = now;
	produce(&web, 9);
	now = read_ledger(ledger);
	CHECK(now.produced == before.produced + 9 && now.in_ring == before.in_ring + 9);
	lbl_ledger_free(ledger);
	end_producer(&web);
}

int main(void)
{
	RUN(test_a_map_has_one_count_per_process);
	RUN(test_sums_of_a_map_never_go_down);
	RUN(test_sums_of_a_map_do_not_overflow);
	RUN(test_counts_start_with_the_ledger);
	RUN(test_a_map_that_goes_down);
	RUN(test_a_sum_that_is_open_stays_so);
	RUN(test_ring_and_counters_are_replaced);
	RUN(test_a_ring_is_replaced_with_records_in_it);
	RUN(test_another_stream_uses_the_map);
	RUN(test_one_stream_without_counters_is_enough);
	RUN(test_memory_may_end);
	RUN(test_a_child_has_the_counts_of_the_fork);
	RUN(test_ledgers_opened_under_traffic_are_exact);
	RUN(test_replacing_under_traffic);
	return checks_done();
}
