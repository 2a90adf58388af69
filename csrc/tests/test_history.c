// SPDX-License-Identifier: MIT
/* A history without memory, and while others record; tests/test_history.py has what it says. */
#include "common.h"
#include "track/window.h"

static const struct lbl_selection all = { .which = LBL_SELECT_ALL };

static struct lbl_history *make_history(void)
{
	struct lbl_buckets *buckets = make_buckets(), *each[LBL_METRICS] = { buckets };
	struct lbl_history *history;

	REQUIRE(!lbl_history_new(each, 64 << 20, SECOND, &history));
	lbl_buckets_free(buckets);
	return history;
}

static struct lbl_backend *make_backend(struct lbl_tracker *tracker, uint8_t number)
{
	uint8_t addr[16] = { [10] = 0xff, [11] = 0xff, [12] = 10, [15] = number };
	int name = lbl_tracker_name(tracker, "web", 3);
	struct lbl_backend *backend;

	REQUIRE(name > 0);
	REQUIRE(!lbl_tracker_backend(tracker, LBL_LIFETIME, (uint16_t)name, addr, 80, &backend));
	return backend;
}

static uint64_t count_in(struct lbl_history *history, uint64_t window_ns)
{
	struct lbl_window *window;
	uint64_t n = 0;
	uint32_t i;

	REQUIRE(!lbl_history_window(history, LBL_LIFETIME, &all, window_ns, &window));
	for (i = 0; i < window->n; i++)
		n += window->counts[i];
	lbl_window_free(window);
	return n;
}

/* Whatever call runs out of memory, the next sample has what the failed one would have had. */
static void test_a_sample_without_memory_is_none(void)
{
	struct lbl_tracker *tracker = make_tracker(10, false);
	struct lbl_backend *one = make_backend(tracker, 1), *two = NULL;
	struct lbl_history *history = make_history();
	uint32_t ends_at, failed = 0;

	CHECK(!lbl_history_sample(history, tracker, 2 * SECOND));
	CHECK(!lbl_backend_observe(one, 0.1));
	for (ends_at = 1; ends_at < 20; ends_at++) {
		int err;

		memory_ends_at = ends_at;
		err = lbl_history_sample(history, tracker, (2 + ends_at) * SECOND);
		memory_ends_at = 0;
		no_memory = false;
		CHECK(!err || err == -ENOMEM);
		failed += !!err;
		if (!err)
			break;
		CHECK(count_in(history, 60 * SECOND) == 0);
	}
	CHECK(failed > 3 && ends_at < 20);
	CHECK(count_in(history, 60 * SECOND) == 1);
	two = make_backend(tracker, 2);
	CHECK(!lbl_backend_observe(two, 0.1));
	CHECK(!lbl_history_sample(history, tracker, 30 * SECOND));
	CHECK(count_in(history, 60 * SECOND) == 2);
	lbl_backend_free(one);
	lbl_backend_free(two);
	lbl_history_free(history);
	lbl_tracker_free(tracker);
}

static void test_reading_without_memory_is_an_error(void)
{
	struct lbl_tracker *tracker = make_tracker(10, false);
	struct lbl_history *history = make_history();
	struct lbl_overview *overview;
	struct lbl_window *window;
	struct lbl_heat *heat;

	CHECK(!lbl_history_sample(history, tracker, 2 * SECOND));
	CHECK(!lbl_history_sample(history, tracker, 3 * SECOND));
	for (memory_ends_at = 1;; memory_ends_at = 0) {
		bool is_short = memory_ends_at;

		no_memory = is_short;
		CHECK(lbl_history_overview(history, SECOND, &overview) == (is_short ? -ENOMEM : 0));
		CHECK(lbl_history_window(history, 0, &all, SECOND, &window) ==
		      (is_short ? -ENOMEM : 0));
		CHECK(lbl_history_heat(history, 0, &all, SECOND, &heat) ==
		      (is_short ? -ENOMEM : 0));
		no_memory = false;
		if (!is_short)
			break;
	}
	lbl_overview_free(overview);
	lbl_window_free(window);
	lbl_heat_free(heat);
	lbl_history_free(history);
	lbl_tracker_free(tracker);
}

struct work {
	struct lbl_tracker *tracker;
	struct lbl_history *history;
	bool stop;
	uint64_t recorded;
};

static void *record(void *arg)
{
	struct work *work = arg;
	struct lbl_backend *backend = make_backend(work->tracker, 1);

	while (!__atomic_load_n(&work->stop, __ATOMIC_RELAXED)) {
		CHECK(!lbl_backend_observe(backend, 0.1));
		work->recorded++;
	}
	lbl_backend_free(backend);
	return NULL;
}

static void *ask(void *arg)
{
	struct work *work = arg;
	struct lbl_history_info info;
	struct lbl_overview *overview;
	struct lbl_heat *heat;

	while (!__atomic_load_n(&work->stop, __ATOMIC_RELAXED)) {
		CHECK(!lbl_history_overview(work->history, 60 * SECOND, &overview));
		CHECK(!lbl_history_heat(work->history, 0, &all, 60 * SECOND, &heat));
		lbl_history_info(work->history, &info);
		lbl_overview_free(overview);
		lbl_heat_free(heat);
	}
	return NULL;
}

/* Samples, questions and recording at once: all that was recorded is in some column, once. */
static void test_several_threads(void)
{
	struct work work = { .tracker = make_tracker(10, false), .history = make_history() };
	pthread_t recorder, asker;
	uint64_t now = 2 * SECOND;
	int i;

	CHECK(!lbl_history_sample(work.history, work.tracker, now));
	REQUIRE(!pthread_create(&recorder, NULL, record, &work));
	REQUIRE(!pthread_create(&asker, NULL, ask, &work));
	for (i = 0; i < 200; i++)
		CHECK(!lbl_history_sample(work.history, work.tracker, now += SECOND));
	__atomic_store_n(&work.stop, true, __ATOMIC_RELAXED);
	pthread_join(recorder, NULL);
	pthread_join(asker, NULL);
	CHECK(!lbl_history_sample(work.history, work.tracker, now += SECOND));
	CHECK(count_in(work.history, LBL_FINE_S * SECOND) == work.recorded);
	lbl_history_free(work.history);
	lbl_tracker_free(work.tracker);
}

int main(void)
{
	RUN(test_a_sample_without_memory_is_none);
	RUN(test_reading_without_memory_is_an_error);
	RUN(test_several_threads);
	return checks_done();
}
