// SPDX-License-Identifier: MIT
/* Durations observed by the program, and snapshots of all that a tracker has counted. */
#include "common.h"

static const uint8_t addr[16] = { [10] = 0xff, [11] = 0xff, [12] = 10, [15] = 1 };

static struct lbl_backend *backend_of(struct lbl_tracker *tracker, enum lbl_metric metric,
				      const char *name)
{
	struct lbl_backend *backend;
	int number = lbl_tracker_name(tracker, name, strlen(name));

	REQUIRE(number > 0);
	REQUIRE(!lbl_tracker_backend(tracker, metric, (uint16_t)number, addr, 80, &backend));
	return backend;
}

static struct lbl_snapshot *snapshot_of(struct lbl_tracker *tracker, enum lbl_metric metric)
{
	struct lbl_snapshot *snapshot;

	REQUIRE(!lbl_tracker_snapshot(tracker, metric, &snapshot));
	return snapshot;
}

static uint64_t count_of(struct lbl_tracker *tracker, enum lbl_metric metric)
{
	struct lbl_snapshot *snapshot = snapshot_of(tracker, metric);
	uint64_t n = 0;
	size_t i;

	for (i = 0; i < snapshot->n_rows; i++)
		n += snapshot->rows[i].count;
	lbl_snapshot_free(snapshot);
	return n;
}

static void produce(struct lbl_stream *stream, uint8_t backend, uint32_t n)
{
	struct lbl_event event = closed_event(SECOND, backend);

	while (n--)
		REQUIRE(!lbl_stream_produce(stream, &event, sizeof(event)));
	REQUIRE(lbl_stream_drain(stream) >= 0);
}

/* A refused call changes nothing, and the lock is free after each call. */
static void test_observing(void)
{
	struct lbl_tracker *tracker = make_tracker(10, true);
	struct lbl_backend *backend = backend_of(tracker, LBL_CONNECT, "web");
	double seconds[300] = { [299] = -1 };
	size_t at = 77;

	CHECK(lbl_backend_observe(backend, -1) == -EINVAL);
	CHECK(lbl_backend_try_observe(backend, __builtin_nan("")) == -EINVAL);
	CHECK(lbl_backend_observe_many(backend, seconds, 300, &at) == -EINVAL && at == 299);
	CHECK(count_of(tracker, LBL_CONNECT) == 0);
	CHECK(lbl_backend_observe(backend, 1) == 0 && lbl_backend_try_observe(backend, 2) == 0);
	pthread_mutex_lock(&tracker->own->sink.lock);
	CHECK(lbl_backend_try_observe(backend, 1) == -EBUSY);
	pthread_mutex_unlock(&tracker->own->sink.lock);
	CHECK(lbl_backend_observe_many(backend, seconds, 99, &at) == 0);
	CHECK(lbl_backend_observe_many(backend, seconds, 0, &at) == 0);
	CHECK(count_of(tracker, LBL_CONNECT) == 101 && count_of(tracker, LBL_LIFETIME) == 0);
	no_memory = true;
	CHECK(lbl_backend_observe_many(backend, seconds, 299, &at) == -ENOMEM);
	CHECK(lbl_backend_observe(backend, 0) == -ENOMEM);
	CHECK(lbl_backend_try_observe(backend, 0) == -ENOMEM);
	no_memory = false;
	CHECK(lbl_backend_observe_many(backend, seconds, 299, &at) == 0);
	lbl_backend_free(backend);
	lbl_tracker_free(tracker);
}

static int add_to(struct lbl_backend *backend, uint16_t slot, uint64_t n, uint64_t sum_lo,
		  uint64_t sum_hi)
{
	return lbl_backend_add(backend, 1, &slot, &n, sum_lo, sum_hi);
}

/* What is refused changes nothing, and the lock is free after each call. */
static void test_adding_histograms(void)
{
	struct lbl_tracker *tracker = make_tracker(10, true);
	struct lbl_backend *connect = backend_of(tracker, LBL_CONNECT, "web");
	struct lbl_backend *lifetime = backend_of(tracker, LBL_LIFETIME, "web");
	uint32_t slots = lbl_buckets_slots(tracker->own->banks[0].buckets);
	uint16_t two[] = { 5, (uint16_t)(slots - 1) };
	uint64_t counts[] = { 3, 1ULL << 40 };
	const struct lbl_outcomes *outcomes = &tracker->own->outcomes;
	struct lbl_snapshot *snapshot;

	CHECK(add_to(connect, (uint16_t)slots, 1, 0, 0) == -EINVAL);
	CHECK(add_to(connect, 5, 0, 0, 0) == -EINVAL);
	CHECK(add_to(connect, 5, 1, LBL_OBSERVE_MAX + 1, 0) == -EINVAL);
	CHECK(add_to(connect, 5, 4, 1, 1) == -EINVAL);
	CHECK(add_to(connect, 5, LBL_OBSERVED_MAX + 1, 0, 0) == -ERANGE);
	no_memory = true;
	CHECK(add_to(connect, 5, 1, 0, 0) == -ENOMEM);
	no_memory = false;
	CHECK(count_of(tracker, LBL_CONNECT) == 0 && outcomes->observed == 0);
	CHECK(lbl_backend_add(connect, 0, NULL, NULL, 0, 0) == 0);
	CHECK(add_to(connect, 5, 4, 0, 1) == 0);
	CHECK(lbl_backend_add(lifetime, 2, two, counts, 7, 0) == 0);
	CHECK(count_of(tracker, LBL_CONNECT) == 4 && outcomes->observed == 7 + (1ULL << 40));
	snapshot = snapshot_of(tracker, LBL_LIFETIME);
	REQUIRE(snapshot->n_pairs == 2 && !memcmp(snapshot->slots, two, sizeof(two)));
	CHECK(!memcmp(snapshot->counts, counts, sizeof(counts)));
	CHECK(snapshot->rows[snapshot->n_rows - 1].sum_lo == 7);
	CHECK(snapshot->rows[snapshot->n_rows - 1].closed[LBL_REASON_UNKNOWN] == 3 + (1ULL << 40));
	lbl_snapshot_free(snapshot);
	snapshot = snapshot_of(tracker, LBL_CONNECT);
	CHECK(snapshot->rows[snapshot->n_rows - 1].sum_hi == 1);
	lbl_snapshot_free(snapshot);
	CHECK(add_to(lifetime, 5, LBL_OBSERVED_MAX - outcomes->observed + 1, 0, 0) == -ERANGE);
	CHECK(add_to(lifetime, 5, LBL_OBSERVED_MAX - outcomes->observed, 0, 0) == 0);
	CHECK(lbl_backend_observe(connect, 1) == 0);
	CHECK(add_to(connect, 5, 1, 0, 0) == -ERANGE);
	CHECK(count_of(tracker, LBL_CONNECT) == 5);
	lbl_backend_free(connect);
	lbl_backend_free(lifetime);
	lbl_tracker_free(tracker);
}

static void test_latencies_that_are_not_recorded(void)
{
	struct lbl_tracker *tracker = make_tracker(10, false);
	struct lbl_snapshot *snapshot;
	struct lbl_backend *backend;
	uint32_t metric;

	for (metric = 0; metric <= LBL_METRICS; metric++) {
		int err = metric == LBL_LIFETIME ? 0 : -ENOENT;

		CHECK(lbl_tracker_backend(tracker, metric, 1, addr, 80, &backend) == err);
		if (!err)
			lbl_backend_free(backend);
		CHECK(lbl_tracker_snapshot(tracker, metric, &snapshot) == err);
		if (!err)
			lbl_snapshot_free(snapshot);
		CHECK(lbl_tracker_snapshot_one(tracker, metric, 1, addr, 80, &snapshot) == err);
		if (!err)
			lbl_snapshot_free(snapshot);
	}
	lbl_tracker_free(tracker);
}

static void test_what_a_tracker_can_be(void)
{
	struct lbl_buckets *buckets = make_buckets(), *each[LBL_METRICS] = { buckets };
	struct lbl_tracker *tracker;

	CHECK(lbl_tracker_new(each, 0, &tracker) == -EINVAL);
	CHECK(lbl_tracker_new(each, LBL_BACKENDS_MAX + 1, &tracker) == -EINVAL);
	each[LBL_LIFETIME] = NULL;
	each[LBL_CONNECT] = buckets;
	CHECK(lbl_tracker_new(each, 1, &tracker) == -EINVAL);
	each[LBL_LIFETIME] = buckets;
	no_memory = true;
	CHECK(lbl_tracker_new(each, 1, &tracker) == -ENOMEM);
	no_memory = false;
	REQUIRE(!lbl_tracker_new(each, LBL_BACKENDS_MAX, &tracker));
	lbl_tracker_free(tracker);
	CHECK(buckets->refs == 1);
	lbl_tracker_free(NULL);
	lbl_buckets_free(buckets);
}

/* Observed by the program and from two streams, one of which uses a proxy id. */
static void test_a_backend_is_one_row(void)
{
	struct lbl_tracker *tracker = make_tracker(10, true);
	struct lbl_backend *backend = backend_of(tracker, LBL_LIFETIME, "web");
	int web = lbl_tracker_name(tracker, "web", 3);
	struct lbl_proxy proxies[] = { { "web", 3, LBL_ALL_STREAMS, .id = 0 },
				       { "web", 3, LBL_ALL_STREAMS, .id = 9 },
				       { "api", 3, LBL_ALL_STREAMS, .id = 3 } };
	struct lbl_event event = closed_event(SECOND, 1);
	struct lbl_stream *streams[2];
	struct lbl_snapshot *snapshot;
	struct lbl_backend_snapshot *row;
	size_t i;

	for (i = 0; i < 2; i++)
		REQUIRE(!lbl_stream_memory(1 << 14, &streams[i]));
	REQUIRE(!lbl_tracker_start(tracker, streams, 2, NULL, proxies, 3));
	CHECK(!lbl_backend_observe(backend, 2));
	produce(streams[0], 1, 3);
	produce(streams[1], 1, 4);
	produce(streams[1], 2, 5);
	for (i = 0; i < 2; i++) {
		event.proxy_id = proxies[1 + i].id;
		REQUIRE(!lbl_stream_produce(streams[1], &event, sizeof(event)));
		REQUIRE(lbl_stream_drain(streams[1]) == 1);
	}
	for (i = 0; i < 2; i++) { /* the same after the streams' counts were merged */
		snapshot = snapshot_of(tracker, LBL_LIFETIME);
		CHECK(snapshot->n_rows == 4 && snapshot->rows[0].name == 0);
		CHECK(snapshot->n_pairs == 4 && snapshot->rows[0].count == 0);
		lbl_snapshot_free(snapshot);
		REQUIRE(!lbl_tracker_snapshot_one(tracker, LBL_LIFETIME, (uint16_t)web, addr, 80,
						  &snapshot));
		REQUIRE(snapshot->n_rows == 1 && snapshot->n_pairs == 2);
		row = &snapshot->rows[0];
		CHECK(row->count == 9 && row->n == 2 && row->first == 0);
		CHECK(row->sum_lo == 10 * SECOND && row->sum_hi == 0);
		CHECK(row->name == web && row->port == 80 && !memcmp(row->addr, addr, 16));
		CHECK(row->closed[LBL_REASON_FIN] == 8 && row->closed[LBL_REASON_UNKNOWN] == 1);
		CHECK(snapshot->counts[0] == 8 && snapshot->counts[1] == 1);
		CHECK(snapshot->slots[0] < snapshot->slots[1]);
		lbl_snapshot_free(snapshot);
		REQUIRE(!lbl_tracker_snapshot_one(tracker, LBL_LIFETIME, (uint16_t)web, addr, 81,
						  &snapshot));
		CHECK(snapshot->n_rows == 0);
		lbl_snapshot_free(snapshot);
		CHECK(lbl_tracker_running(tracker) == !i);
		lbl_tracker_stop(tracker);
	}
	for (i = 0; i < 2; i++)
		lbl_stream_free(streams[i]);
	lbl_backend_free(backend);
	lbl_tracker_free(tracker);
}

/* Rows, pairs and names of many backends, each with many slots. */
static void test_a_large_snapshot(void)
{
	enum { BACKENDS = 300, DURATIONS = 40 };
	struct lbl_tracker *tracker = make_tracker(BACKENDS, false);
	struct lbl_snapshot *snapshot;
	struct lbl_backend *backend;
	uint8_t other[16] = { 0xfd };
	size_t i, k;

	for (i = 0; i < BACKENDS + 7; i++) { /* more than the capacity */
		memcpy(other + 8, &i, sizeof(i));
		REQUIRE(!lbl_tracker_backend(tracker, LBL_LIFETIME, 1, other, 80, &backend));
		for (k = 0; k < DURATIONS; k++)
			CHECK(!lbl_backend_observe(backend, 1e-6 * (double)(1ULL << k)));
		lbl_backend_free(backend);
	}
	snapshot = snapshot_of(tracker, LBL_LIFETIME);
	CHECK(snapshot->n_rows == BACKENDS + 1);
	CHECK(snapshot->n_pairs == (BACKENDS + 1) * DURATIONS);
	for (i = 0; i < snapshot->n_rows; i++) {
		const struct lbl_backend_snapshot *row = &snapshot->rows[i];

		CHECK(row->first == i * DURATIONS && row->n == DURATIONS);
		CHECK(row->count == (row->name ? 1 : 7) * DURATIONS);
	}
	lbl_snapshot_free(snapshot);
	no_memory = true;
	CHECK(lbl_tracker_snapshot(tracker, LBL_LIFETIME, &snapshot) == -ENOMEM);
	CHECK(lbl_tracker_snapshot_one(tracker, LBL_LIFETIME, 1, addr, 80, &snapshot) == -ENOMEM);
	no_memory = false;
	lbl_tracker_reset(tracker);
	CHECK(count_of(tracker, LBL_LIFETIME) == 0);
	lbl_tracker_free(tracker);
}

static void test_names_have_numbers(void)
{
	struct lbl_tracker *tracker = make_tracker(1, false);
	char text[16];
	size_t len;
	int i;

	CHECK(lbl_tracker_find_name(tracker, "0", 1) == -ENOENT);
	for (i = 1; i <= 100; i++) {
		len = (size_t)snprintf(text, sizeof(text), "%d", i);
		CHECK(lbl_tracker_name(tracker, text, len) == i);
		CHECK(lbl_tracker_name(tracker, text, len) == i);
		CHECK(lbl_tracker_find_name(tracker, text, len) == i);
	}
	CHECK(lbl_tracker_find_name(tracker, "1", 0) == -ENOENT);
	CHECK(!memcmp(lbl_tracker_name_text(tracker, 100, &len), "100", 3) && len == 3);
	CHECK(!memcmp(lbl_tracker_name_text(tracker, 0, &len), "overflow", 8) && len == 8);
	CHECK(!lbl_tracker_name_text(tracker, 101, &len));
	CHECK(lbl_tracker_name(tracker, "overflow", 8) == 101); /* a proxy may have this name */
	lbl_tracker_free(tracker);
}

/* A name that memory has no room for is not added, and is not in the way of a later one. */
static void test_naming_without_memory(void)
{
	struct lbl_tracker *tracker = make_tracker(1, false);
	char text[16];
	size_t len;
	uint32_t end;
	int i;

	for (i = 1; i <= 300; i++) {
		len = (size_t)snprintf(text, sizeof(text), "%d", i);
		for (end = 1; end <= 3; end++) { /* a name that needs more room allocates 3 times */
			int number;

			memory_ends_at = end;
			number = lbl_tracker_name(tracker, text, len);
			CHECK(number == (no_memory ? -ENOMEM : i));
			no_memory = false;
			memory_ends_at = 0;
			CHECK(lbl_tracker_find_name(tracker, text, len) ==
			      (number == i ? i : -ENOENT));
		}
		CHECK(lbl_tracker_name(tracker, text, len) == i);
	}
	for (i = 1; i <= 300; i++) {
		len = (size_t)snprintf(text, sizeof(text), "%d", i);
		CHECK(lbl_tracker_find_name(tracker, text, len) == i);
	}
	lbl_tracker_free(tracker);
}

/* Names beyond the last number are the overflow backend's, for the program and for streams. */
static void test_all_names_in_use(void)
{
	enum { NAMES = 65535 };
	struct lbl_tracker *tracker = make_tracker(10, false);
	struct lbl_event event = closed_event(SECOND, 1);
	struct lbl_stream *stream;
	struct lbl_backend *backend;
	uint64_t recorded;
	char text[16];
	int i;

	for (i = 1; i <= NAMES; i++)
		REQUIRE(lbl_tracker_name(tracker, text,
					 (size_t)snprintf(text, sizeof(text), "%d", i)) == i);
	CHECK(lbl_tracker_name(tracker, "one more", 8) == 0);
	CHECK(lbl_tracker_name(tracker, "65535", 5) == 65535);
	CHECK(lbl_tracker_find_name(tracker, "one more", 8) == -ENOENT);
	REQUIRE(!lbl_tracker_backend(tracker, LBL_LIFETIME, 0, addr, 80, &backend));
	CHECK(!lbl_backend_try_observe(backend, 1) && !lbl_backend_observe(backend, 2));
	lbl_backend_free(backend);
	REQUIRE(!lbl_stream_memory(1 << 14, &stream));
	REQUIRE(!start_on(tracker, &stream, 1, "one more"));
	event.proxy_id = 7; /* "proxy-7" has no number either */
	REQUIRE(!lbl_stream_produce(stream, &event, sizeof(event)));
	event.proxy_id = 0;
	REQUIRE(!lbl_stream_produce(stream, &event, sizeof(event)));
	CHECK(lbl_stream_drain(stream) == 2);
	for (i = 0; i < 2; i++) {
		struct lbl_snapshot *snapshot = snapshot_of(tracker, LBL_LIFETIME);

		recorded = snapshot->rows[0].count;
		CHECK(snapshot->n_rows == 1 && snapshot->rows[0].name == 0 && recorded == 4);
		lbl_snapshot_free(snapshot);
		lbl_tracker_stop(tracker);
	}
	lbl_stream_free(stream);
	lbl_tracker_free(tracker);
}

/* A start that is refused leaves no name behind. */
static void test_a_refused_start_adds_no_name(void)
{
	struct lbl_tracker *tracker = make_tracker(10, false);
	struct lbl_stream *streams[2];
	struct lbl_queue *queues[LBL_SINKS_MAX];
	int i;

	REQUIRE(!lbl_stream_memory(1 << 14, &streams[0]));
	streams[1] = streams[0];
	CHECK(start_on(tracker, streams, 2, "twice") == -EBUSY);
	for (i = 0; i < LBL_SINKS_MAX; i++) {
		REQUIRE(!lbl_queue_new(1, &queues[i]));
		REQUIRE(!lbl_queue_subscribe(queues[i], streams[0]));
	}
	CHECK(start_on(tracker, streams, 1, "crowded") == -ENOSPC);
	for (i = 0; i < LBL_SINKS_MAX; i++)
		lbl_queue_free(queues[i]);
	REQUIRE(!start_on(tracker, streams, 1, "web"));
	CHECK(start_on(tracker, streams, 1, "again") == -EALREADY);
	CHECK(lbl_tracker_find_name(tracker, "web", 3) == 1);
	CHECK(lbl_tracker_find_name(tracker, "twice", 5) == -ENOENT);
	CHECK(lbl_tracker_find_name(tracker, "crowded", 7) == -ENOENT);
	CHECK(lbl_tracker_find_name(tracker, "again", 5) == -ENOENT);
	lbl_tracker_free(tracker);
	lbl_stream_free(streams[0]);
}

/* Return how often a call fails when memory ends one allocation later each time. */
static uint32_t fail_each_time(int (*call)(void))
{
	uint32_t n = 0;
	int err;

	do {
		memory_ends_at = ++n;
		err = call();
		CHECK(!err == !no_memory && (!err || err == -ENOMEM));
		no_memory = false;
	} while (err);
	memory_ends_at = 0;
	return n - 1;
}

static struct lbl_buckets *buckets;
static struct lbl_tracker *tracker;
static struct lbl_stream *stream;

static int make_one(void)
{
	struct lbl_buckets *each[LBL_METRICS] = { buckets, buckets, buckets, buckets };

	return lbl_tracker_new(each, 10, &tracker);
}

static int start_it(void)
{
	int err = start_on(tracker, &stream, 1, "web");

	CHECK(lbl_tracker_running(tracker) == !err && stream->n_sinks == !err);
	return err;
}

static int read_it(void)
{
	struct lbl_snapshot *snapshot;
	int err = lbl_tracker_snapshot(tracker, LBL_LIFETIME, &snapshot);

	if (!err)
		lbl_snapshot_free(snapshot);
	return err;
}

/* A failed call leaks nothing; AddressSanitizer checks it. */
static void test_memory_may_end_at_any_time(void)
{
	buckets = make_buckets();
	REQUIRE(!lbl_stream_memory(4096, &stream));
	CHECK(fail_each_time(make_one) > 10);
	CHECK(fail_each_time(start_it) > 10);
	CHECK(fail_each_time(read_it) == 5);
	lbl_tracker_free(tracker);
	CHECK(buckets->refs == 1 && stream->refs == 1);
	lbl_stream_free(stream);
	lbl_buckets_free(buckets);
}

int main(void)
{
	RUN(test_observing);
	RUN(test_adding_histograms);
	RUN(test_latencies_that_are_not_recorded);
	RUN(test_what_a_tracker_can_be);
	RUN(test_a_backend_is_one_row);
	RUN(test_a_large_snapshot);
	RUN(test_names_have_numbers);
	RUN(test_naming_without_memory);
	RUN(test_all_names_in_use);
	RUN(test_a_refused_start_adds_no_name);
	RUN(test_memory_may_end_at_any_time);
	return checks_done();
}
