// SPDX-License-Identifier: MIT
/* How a shard records single events, and merges another shard's counts. */
#include <pthread.h>

#include "common.h"

enum { SPAN_US = 1000 };

static struct lbl_totals totals;

/* A closed event that contains all four latencies. */
static struct lbl_event telling_event(uint8_t backend)
{
	struct lbl_event event = closed_event(SECOND, backend);

	event.connect_us = event.first_byte_us = event.closing_us = SPAN_US;
	return event;
}

static void record(struct lbl_shard *shard, const struct lbl_event *event, uint32_t n)
{
	while (n--)
		lbl_shard_record(shard, event, sizeof(*event));
}

static uint64_t counted(const struct lbl_shard *shard, uint32_t index, enum lbl_metric metric)
{
	uint64_t n = 0;
	uint32_t i;

	lbl_totals_clear(&totals);
	lbl_bank_read(&shard->banks[metric], index, &totals);
	for (i = totals.first; i < totals.end; i++)
		n += totals.slots[i];
	return n;
}

static struct lbl_tallies tallies_of(const struct lbl_shard *shard, uint32_t index)
{
	struct lbl_tallies tallies = { 0 };

	lbl_shard_tallies(shard, index, &tallies);
	return tallies;
}

/* Each kind of event has one outcome, and records only the latencies that it contains. */
static void test_each_event_has_one_outcome(void)
{
	struct lbl_shard *shard = make_shard(10, true);
	const struct lbl_outcomes *outcomes = &shard->outcomes;
	struct lbl_event event = telling_event(1);
	struct lbl_tallies tallies;

	record(shard, &event, 1);
	CHECK(outcomes->closed == 1 && outcomes->recorded == 1);
	event.created_ns = 0;
	record(shard, &event, 1);
	CHECK(outcomes->closed == 2 && outcomes->unmatched == 1);
	event.created_ns = event.timestamp_ns + 1;
	record(shard, &event, 1);
	event.created_ns = 1;
	event.timestamp_ns = 1 + LBL_LIFETIME_MAX;
	record(shard, &event, 1);
	CHECK(outcomes->rejected == 1 && outcomes->recorded == 2);
	event.timestamp_ns++;
	record(shard, &event, 1);
	CHECK(outcomes->closed == 5 && outcomes->rejected == 2 && outcomes->recorded == 2);
	event = telling_event(1);
	event.reason = LBL_REASON_CONNECT_FAILED;
	record(shard, &event, 1);
	event.flags |= LBL_FLAG_PROBE;
	record(shard, &event, 1);
	CHECK(outcomes->closed == 7 && outcomes->ignored == 2 && accounted(outcomes));
	event.type = LBL_PERIODIC;
	record(shard, &event, 1);
	event.type = LBL_OPENED;
	record(shard, &event, 9);
	event.type = 4;
	record(shard, &event, 1);
	CHECK(outcomes->periodic == 1 && outcomes->opened == 9 && outcomes->malformed == 1);
	tallies = tallies_of(shard, 1);
	CHECK(tallies.opened == 9 && tallies.open == 2 && tallies.probes == 1);
	CHECK(tallies.closed[LBL_REASON_FIN] == 5 &&
	      tallies.closed[LBL_REASON_CONNECT_FAILED] == 1);
	CHECK(counted(shard, 1, LBL_LIFETIME) == 2 && counted(shard, 1, LBL_CONNECT) == 5);
	CHECK(counted(shard, 1, LBL_FIRST_BYTE) == 5 && counted(shard, 1, LBL_ACTIVE) == 2);
	CHECK(totals.sum == SECOND + LBL_LIFETIME_MAX - 2 * 1000 * SPAN_US);
	CHECK(shard->table.n == 2 && !outcomes->not_counted);
	free_shard(shard);
}

static void test_merging_moves_all(void)
{
	struct lbl_shard *from = make_shard(10, true), *to = make_shard(10, true);
	struct lbl_event event = telling_event(1);
	struct lbl_tallies tallies;
	uint32_t metric, index, i;

	to->by_name = true;
	for (i = 0; i < 12; i++) { /* more than the capacity */
		event.addr[15] = (uint8_t)i;
		record(from, &event, 300);
	}
	event.type = LBL_OPENED;
	event.addr[15] = 0;
	record(from, &event, 301);
	event.flags |= LBL_FLAG_PROBE;
	event.type = LBL_CLOSED;
	record(from, &event, 5);
	for (i = 0; i < 2; i++)
		lbl_shard_merge(to, from, &totals);
	CHECK(to->table.n == from->table.n && to->table.n == 11);
	CHECK(to->outcomes.recorded == 2 * from->outcomes.recorded);
	CHECK(to->outcomes.recorded == 2 * 12 * 300 && !to->outcomes.rejected);
	CHECK(kinds(&to->outcomes) == 2 * kinds(&from->outcomes) && accounted(&to->outcomes));
	for (index = 0; index < 11; index++) {
		for (metric = 0; metric < LBL_METRICS; metric++)
			CHECK(counted(to, index, metric) == (index ? 600 : 1200));
		CHECK(totals.sum == (index ? 600 : 1200) * (SECOND - 1000 * SPAN_US));
		CHECK(tallies_of(to, index).closed[LBL_REASON_FIN] == (index ? 600 : 1200));
	}
	tallies = tallies_of(to, 1);
	CHECK(tallies.opened == 602 && tallies.probes == 10 && tallies.open == 0);
	free_shard(from);
	free_shard(to);
}

/* Lost observations are counted as lost, and every identity holds. */
static void test_merging_without_memory_loses_nothing_silently(void)
{
	struct lbl_shard *from = make_shard(10, true), *to = make_shard(10, true);
	struct lbl_event event = telling_event(1);
	uint32_t metric;

	to->by_name = true;
	record(from, &event, 200); /* more than a counter can hold without carrying */
	event.addr[15] = 2;
	event.created_ns -= SECOND / 2;
	record(from, &event, 100);
	no_memory = true;
	lbl_shard_merge(to, from, &totals);
	no_memory = false;
	CHECK(to->outcomes.closed == 300 && accounted(&to->outcomes));
	CHECK(to->outcomes.recorded == 100 && to->outcomes.rejected == 200);
	CHECK(to->outcomes.not_counted == 3 * 200);
	for (metric = 0; metric < LBL_METRICS; metric++)
		CHECK(counted(to, 1, metric) == 0 && counted(to, 2, metric) == 100);
	free_shard(from);
	free_shard(to);
}

/* Counts and sums that overflow the bits in struct lbl_hot. */
static void check_carry(bool in_bursts, bool with_opened)
{
	static struct {
		uint64_t header;
		struct lbl_event event;
	} records[4];
	struct lbl_shard *shard = make_shard(10, true);
	struct lbl_event event = telling_event(1);
	struct lbl_tallies tallies;
	uint32_t metric, i;

	record(shard, &event, 1);
	lbl_tally_add(&shard->table, 1, LBL_REASON_FIN, (1U << 31) - 2);
	lbl_tally_add(&shard->table, 1, LBL_HOT_OPENED, (1U << 31) - 1);
	for (metric = 0; metric < LBL_METRICS; metric++)
		lbl_bank_add_sum(&shard->banks[metric], 1, (1ULL << 63) - 1 - SECOND);
	for (i = 0; i < 4; i++) {
		records[i].event = event;
		records[i].event.type = with_opened && i % 2 ? LBL_OPENED : LBL_CLOSED;
		records[i].event.connect_us = SPAN_US * SPAN_US; /* a second one, too */
		records[i].event.first_byte_us = SPAN_US * SPAN_US;
		if (!in_bursts)
			record(shard, &records[i].event, 1);
	}
	if (in_bursts)
		lbl_shard_record_burst(shard, &records[0].event, 4);
	for (i = 0; i < LBL_HOT_COUNTS; i++)
		CHECK(!(shard->table.hot[1].counts[i] >> 31));
	for (metric = 0; metric < LBL_METRICS; metric++) {
		uint64_t each = metric == LBL_ACTIVE ? SECOND - 1000 * SPAN_US : SECOND;
		uint64_t first = metric == LBL_CONNECT || metric == LBL_FIRST_BYTE ? 1000 * SPAN_US
										   : each;

		CHECK(!(*lbl_bank_sum(&shard->banks[metric], 1) >> 63));
		CHECK(counted(shard, 1, metric) == (with_opened ? 3 : 5));
		CHECK(totals.sum ==
		      (lbl_u128)(1ULL << 63) - 1 - SECOND + first + (with_opened ? 2 : 4) * each);
	}
	tallies = tallies_of(shard, 1);
	CHECK(tallies.closed[LBL_REASON_FIN] == (1ULL << 31) - 1 + (with_opened ? 2 : 4));
	CHECK(tallies.opened == (1ULL << 31) - 1 + (with_opened ? 2 : 0));
	free_shard(shard);
}

static void test_counts_and_sums_carry_event_by_event(void)
{
	int i;

	for (i = 0; i < 4; i++)
		check_carry(i & 1, i & 2);
}

/* Unnamed proxies are named by their id; no backend has the overflow backend's key. */
static void test_proxies_have_names(void)
{
	struct lbl_shard *shard = make_shard(10, false);
	struct lbl_event event = closed_event(SECOND, 1);
	const char *text;
	size_t len;

	event.proxy_id = 7;
	record(shard, &event, 1);
	event.addr[15] = 2;
	record(shard, &event, 1);
	event.proxy_id = 65535;
	record(shard, &event, 1);
	CHECK(shard->table.cold[1].name == shard->table.cold[2].name);
	text = lbl_intern_text(shard->proxies.names, shard->table.cold[1].name, &len);
	CHECK(len == 7 && !memcmp(text, "proxy-7", 7));
	text = lbl_intern_text(shard->proxies.names, shard->table.cold[3].name, &len);
	CHECK(len == 11 && !memcmp(text, "proxy-65535", 11));
	memcpy(&event.port, &lbl_overflow_key, sizeof(lbl_overflow_key));
	record(shard, &event, 1);
	CHECK(shard->table.n == 4 && tallies_of(shard, 0).closed[LBL_REASON_FIN] == 1);
	free_shard(shard);
}

/* Events that contain the client, as written by clj-ebpf-lb in network order. */
static void record_foreign(struct lbl_shard *shard, uint8_t type, uint64_t at_ns, uint8_t vip_port)
{
	uint8_t bytes[64] = { [0] = type,
			      [10] = (uint8_t)(at_ns >> 8),
			      [11] = (uint8_t)at_ns,
			      [12] = 10,
			      [16] = 10,
			      [21] = 99,
			      [23] = vip_port,
			      [24] = 10,
			      [27] = 1,
			      [29] = 80 };

	lbl_shard_record(shard, bytes, sizeof(bytes));
}

static uint64_t asked;

static uint64_t created_elsewhere(void *ctx, const struct lbl_decoded_event *event)
{
	CHECK(event->client_port == 99 && event->event.port == 80);
	asked++;
	return *(uint64_t *)ctx;
}

static uint32_t told;

static void use_elsewhere(void *ctx, const struct lbl_decoded_event *event)
{
	CHECK(event->client_port == 99 && ctx);
	told++;
}

/* Creation times come from the opened event, else from the last source, else are unknown. */
static void test_where_a_creation_time_comes_from(void)
{
	struct lbl_shard *shard = make_shard(10, false);
	struct lbl_event own = closed_event(SECOND, 1);
	uint64_t elsewhere = 1000;

	shard->birth_source =
		(struct lbl_birth_source){ created_elsewhere, &elsewhere, use_elsewhere };
	record_foreign(shard, LBL_OPENED, 2000, 1);
	record_foreign(shard, LBL_CLOSED, 5000, 1);
	CHECK(counted(shard, 1, LBL_LIFETIME) == 1 && totals.sum == 3000 && !asked && told == 1);
	record_foreign(shard, LBL_CLOSED, 6000, 1);
	CHECK(counted(shard, 1, LBL_LIFETIME) == 2 && totals.sum == 3000 + 5000 && asked == 1);
	elsewhere = 0;
	record_foreign(shard, LBL_CLOSED, 7000, 1);
	CHECK(asked == 2 && shard->outcomes.unmatched == 1);
	shard->birth_source = (struct lbl_birth_source){ 0 };
	record_foreign(shard, LBL_CLOSED, 7000, 1);
	own.created_ns = 0; /* and the event does not contain the client */
	record(shard, &own, 1);
	CHECK(asked == 2 && told == 1);
	CHECK(shard->outcomes.unmatched == 3 && accounted(&shard->outcomes));
	free_shard(shard);
}

/* A named VIP is a listener of its own; any other means the stream's own proxy, with id 0. */
static void test_a_vip_tells_the_proxy(void)
{
	static const struct lbl_vip vips[] = {
		{ .addr = { [10] = 0xff, 0xff, 10 }, .port = 1, .name = 4 },
		{ .addr = { [10] = 0xff, 0xff, 11 }, .port = 2, .name = 5 },
		{ .addr = { [10] = 0xff, 0xff, 10 }, .port = 2, .name = 4 },
	};
	static const uint16_t expected[] = { 3, 4 };
	struct lbl_shard *shard = make_shard(10, false);
	struct lbl_key named = { .port = 80, .addr = { [10] = 0xff, 0xff } };
	uint32_t index, opened = 0;
	size_t at = 0;
	uint8_t i;

	lbl_proxies_set(&shard->proxies, 0, 3);
	REQUIRE(!lbl_proxies_reserve_vips(&shard->proxies, 3));
	for (i = 0; i < 3; i++)
		lbl_proxies_add_vip(&shard->proxies, vips[i].addr, vips[i].port, vips[i].name);
	lbl_proxies_sort_vips(&shard->proxies);
	for (i = 0; i < 4; i++) {
		uint32_t n = shard->table.n;

		record_foreign(shard, LBL_OPENED, 1, i);
		index = shard->table.n - 1;
		CHECK(shard->table.n == n + (i < 2)); /* two VIPs of one name are one backend */
		named = lbl_key_named(&shard->table.hot[index].key, 4);
		CHECK(lbl_is_ipv4(named.addr) && named.proxy_ref == 4);
		if (i < 2)
			CHECK(shard->table.cold[index].name == expected[i]);
	}
	while ((index = lbl_shard_next_named(shard, &named, &at)))
		opened += (uint32_t)tallies_of(shard, index).opened;
	CHECK(opened == 2);
	free_shard(shard);
}

/* No proxy id of an event can be taken for a VIP, or a VIP for a proxy id. */
static void test_a_vip_is_no_proxy_id(void)
{
	static const uint8_t vip[16] = { [10] = 0xff, 0xff, 10 };
	struct lbl_shard *shard = make_shard(10, false);
	struct lbl_event event = closed_event(SECOND, 0);
	struct lbl_key key;
	uint32_t id, n = 0;

	REQUIRE(!lbl_proxies_reserve_vips(&shard->proxies, 1));
	lbl_proxies_add_vip(&shard->proxies, vip, 1, 4);
	record_foreign(shard, LBL_OPENED, 1, 1);
	key = lbl_key_named(&shard->table.hot[1].key, 0);
	event.port = key.port;
	memcpy(event.addr, key.addr, sizeof(event.addr));
	for (id = 0; id <= UINT16_MAX; id++) {
		event.proxy_id = (uint16_t)id;
		n += lbl_table_find(&shard->table, lbl_key_of(&event)) != 0;
	}
	CHECK(n == 0);
	free_shard(shard);
}

static void test_observing_counts_what_there_is_memory_for(void)
{
	struct lbl_shard *shard = make_shard(10, true);
	struct lbl_event event = closed_event(SECOND, 1);
	double seconds[300];
	size_t i, n;

	for (i = 0; i < 300; i++)
		seconds[i] = 0.5;
	record(shard, &event, 1);
	no_memory = true;
	n = lbl_shard_observe(shard, LBL_LIFETIME, 1, seconds, 300);
	no_memory = false;
	CHECK(n >= 127 && n < 256 && shard->outcomes.observed == n);
	CHECK(tallies_of(shard, 1).closed[LBL_REASON_UNKNOWN] == n);
	CHECK(counted(shard, 1, LBL_LIFETIME) == n + 1 && totals.sum == SECOND + n * SECOND / 2);
	CHECK(lbl_shard_observe(shard, LBL_CONNECT, 1, seconds, 300) == 300);
	CHECK(tallies_of(shard, 1).closed[LBL_REASON_UNKNOWN] == n);
	CHECK(shard->outcomes.observed == n + 300 && counted(shard, 1, LBL_CONNECT) == 300);
	seconds[0] = 1e30; /* changed after it was checked */
	lbl_shard_observe(shard, LBL_LIFETIME, 1, seconds, 1);
	CHECK(counted(shard, 1, LBL_LIFETIME) == n + 2);
	CHECK(totals.sum == SECOND + n * SECOND / 2 + LBL_OBSERVE_MAX);
	free_shard(shard);
}

static void test_durations(void)
{
	static const double good[] = { 0.0, -0.0, 5e-324, 1e-9, 1, (double)LBL_OBSERVE_MAX / 1e9 };
	static const double bad[] = { -5e-324,		-1, 1e10, __builtin_inf(), -__builtin_inf(),
				      __builtin_nan("") };
	size_t i;

	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		CHECK(lbl_is_duration(good[i]));
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK(!lbl_is_duration(bad[i]));
}

static void test_clearing_keeps_what_is_open(void)
{
	struct lbl_shard *shard = make_shard(10, true);
	struct lbl_event event = telling_event(1);
	struct lbl_tallies tallies;
	uint32_t metric, seen;

	for (seen = 0; seen < 2; seen++) {
		lbl_shared_set_horizon(shard->shared, seen ? 0 : LBL_HORIZON_ENDLESS);
		event.type = LBL_OPENED;
		record(shard, &event, 500);
		event.type = LBL_CLOSED;
		record(shard, &event, 300);
		lbl_shard_clear(shard, 1, true);
		tallies = tallies_of(shard, 1);
		CHECK(tallies.opened == 0 && tallies.open == (seen ? 200 : 0));
		CHECK(tallies.open_before == tallies.open);
		CHECK(tallies.closed[LBL_REASON_FIN] == 0 && !shard->table.hot[1].sum);
		for (metric = 0; metric < LBL_METRICS; metric++)
			CHECK(counted(shard, 1, metric) == 0 && totals.sum == 0);
	}
	record(shard, &event, 250);
	CHECK(tallies_of(shard, 1).open == -50 && shard->table.cold[1].name);
	lbl_shard_clear(shard, 1, true);
	CHECK(tallies_of(shard, 1).open == -50 && shard->outcomes.closed == 850);
	lbl_shard_clear(shard, 1, false);
	CHECK(tallies_of(shard, 1).open == 0 && tallies_of(shard, 1).open_before == 0);
	free_shard(shard);
}

/* ---- two threads ---- */

enum { FEW = 20 };

struct side {
	struct lbl_shard *shard;
	pthread_barrier_t *round;
	uint32_t rounds;
	pthread_mutex_t *resets; /* excludes readers, as a tracker's lock does */
	bool done;
};

static struct lbl_event opened_event(uint64_t began_ns)
{
	struct lbl_event event = closed_event(SECOND, 1);

	event.type = LBL_OPENED;
	event.created_ns = 0;
	event.timestamp_ns = began_ns;
	return event;
}

static void *close_all(void *arg)
{
	struct side *side = arg;
	struct lbl_event event = closed_event(SECOND, 1);
	uint32_t round, i;

	for (round = 0; round < side->rounds; round++) {
		pthread_barrier_wait(side->round);
		for (i = 0; i < FEW; i++) {
			event.created_ns = SECOND + i;
			record(side->shard, &event, 1);
		}
		pthread_barrier_wait(side->round);
	}
	return NULL;
}

/* Each connection opens in one shard and closes in another, at the same time. */
static void test_the_horizon_is_beyond_what_closed(void)
{
	struct lbl_shard *opens = make_shard(10, false), *closes = make_shard(10, false);
	struct lbl_shared *unused = closes->shared;
	struct side side = { .shard = closes, .rounds = 2000 };
	pthread_barrier_t barrier;
	struct lbl_event event;
	uint32_t round, i, wrong = 0;
	pthread_t thread;

	closes->shared = opens->shared;
	side.round = &barrier;
	pthread_barrier_init(&barrier, NULL, 2);
	REQUIRE(!pthread_create(&thread, NULL, close_all, &side));
	for (round = 0; round < side.rounds; round++) {
		lbl_shared_restart(opens->shared);
		lbl_shard_horizon(opens);
		lbl_shard_horizon(closes);
		pthread_barrier_wait(&barrier);
		for (i = 0; i < FEW; i++) {
			event = opened_event(SECOND + i);
			record(opens, &event, 1);
		}
		pthread_barrier_wait(&barrier);
		event = opened_event(2 * SECOND);
		record(opens, &event, 1);
		lbl_shard_horizon(closes);
		wrong += tallies_of(opens, 1).open + tallies_of(closes, 1).open != 1;
	}
	pthread_join(thread, NULL);
	CHECK(!wrong);
	pthread_barrier_destroy(&barrier);
	closes->shared = unused;
	free_shard(opens);
	free_shard(closes);
}

static void *take_horizons(void *arg)
{
	struct side *side = arg;
	struct lbl_event opened = opened_event(2 * SECOND), closed = closed_event(SECOND, 1);
	uint32_t round;

	for (round = 0; round < side->rounds; round++) {
		pthread_mutex_lock(side->resets);
		lbl_shared_set_horizon(side->shard->shared, LBL_HORIZON_UNSET);
		pthread_mutex_unlock(side->resets);
		record(side->shard, &closed, FEW);
		record(side->shard, &opened, 1);
	}
	__atomic_store_n(&side->done, true, __ATOMIC_RELEASE);
	return NULL;
}

/* Who reads while a shard takes a horizon never sees what closed before it. */
static void test_a_horizon_is_taken_as_a_whole(void)
{
	pthread_mutex_t resets = PTHREAD_MUTEX_INITIALIZER;
	struct side side = { .shard = make_shard(10, false), .rounds = 20000, .resets = &resets };
	uint32_t wrong = 0;
	pthread_t thread;

	REQUIRE(!pthread_create(&thread, NULL, take_horizons, &side));
	while (!__atomic_load_n(&side.done, __ATOMIC_ACQUIRE)) {
		int64_t open;

		pthread_mutex_lock(&resets);
		open = tallies_of(side.shard, 1).open;
		pthread_mutex_unlock(&resets);
		wrong += open < 0 || open > 1;
	}
	pthread_join(thread, NULL);
	CHECK(!wrong);
	free_shard(side.shard);
}

int main(void)
{
	RUN(test_each_event_has_one_outcome);
	RUN(test_merging_moves_all);
	RUN(test_merging_without_memory_loses_nothing_silently);
	RUN(test_counts_and_sums_carry_event_by_event);
	RUN(test_proxies_have_names);
	RUN(test_where_a_creation_time_comes_from);
	RUN(test_a_vip_tells_the_proxy);
	RUN(test_a_vip_is_no_proxy_id);
	RUN(test_observing_counts_what_there_is_memory_for);
	RUN(test_durations);
	RUN(test_clearing_keeps_what_is_open);
	RUN(test_the_horizon_is_beyond_what_closed);
	RUN(test_a_horizon_is_taken_as_a_whole);
	return checks_done();
}
