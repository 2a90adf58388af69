// SPDX-License-Identifier: MIT
/* What scans of a conntrack map remember. tests/bpf has the same over real maps. */
#include "common.h"
#include "source/seen.h"

static struct lbl_seen seen;
static uint64_t scan_ns;

static struct lbl_connection connection(uint32_t client, uint64_t created_ns, uint64_t packets)
{
	struct lbl_connection made = { .client_port = 40000,
				       .backend_port = 80,
				       .protocol = 6,
				       .created_ns = created_ns,
				       .packets_fwd = packets };

	memcpy(made.client_addr + 12, &client, sizeof(client));
	return made;
}

static void begin(void)
{
	scan_ns += SECOND;
	lbl_seen_begin(&seen, scan_ns);
}

static void end(void)
{
	uint32_t at = 0;

	while (lbl_seen_sweep(&seen, &at))
		;
	lbl_seen_end(&seen);
}

/* A scan that finds one connection. */
static void see(uint32_t client, uint64_t created_ns, uint64_t packets)
{
	struct lbl_connection found = connection(client, created_ns, packets);

	begin();
	lbl_seen_add(&seen, &found);
	end();
}

/* Returns the creation time, or 0. */
static uint64_t close_at(uint32_t client, uint64_t ended_ns, const struct lbl_connection *look)
{
	struct lbl_connection event = connection(client, 0, 0);
	uint64_t created_ns = 0;

	return lbl_seen_close(&seen, &event, look, ended_ns, &created_ns) == LBL_SEEN_BORN
		       ? created_ns
		       : 0;
}

static void test_connections_are_told_apart(void)
{
	uint32_t i, n = 3 * LBL_SEEN_CHUNK;

	REQUIRE(!lbl_seen_init(&seen, 1));
	begin();
	for (i = 0; i < n; i++) {
		struct lbl_connection found = connection(i, SECOND + i, 1);

		lbl_seen_add(&seen, &found);
	}
	end();
	CHECK(seen.n == n && !seen.forgotten);
	for (i = 0; i < n; i++) {
		CHECK(close_at(i, 2 * SECOND + i, NULL) == SECOND + i);
		CHECK(close_at(i, 2 * SECOND + i, NULL) == 0);
	}
	CHECK(!close_at(n, SECOND, NULL));
	lbl_seen_destroy(&seen);
}

/* What vanished is kept for 10 s after the scan that missed it; then its memory is used again. */
static void test_what_vanished_is_forgotten(void)
{
	uint32_t i, round;

	REQUIRE(!lbl_seen_init(&seen, 1000));
	for (round = 0; round < 20; round++) {
		begin();
		for (i = 0; i < 1000; i++) {
			struct lbl_connection found = connection(round * 1000 + i, SECOND, 1);

			lbl_seen_add(&seen, &found);
		}
		end();
		CHECK(seen.n <= 12 * 1000 && seen.n_used <= 13 * 1000);
	}
	for (i = 0; i < 11; i++) {
		CHECK(seen.n);
		begin();
		end();
	}
	CHECK(close_at(19999, 2 * SECOND, NULL) == SECOND);
	begin();
	end();
	CHECK(seen.n == 0 && !close_at(19998, 2 * SECOND, NULL));
	lbl_seen_destroy(&seen);
}

/* There is room for so many; more are counted, and unmatched. */
static void test_memory_is_bounded(void)
{
	uint32_t i;

	REQUIRE(!lbl_seen_init(&seen, UINT32_MAX));
	begin();
	for (i = 0; i <= LBL_SEEN_MAX; i++) {
		struct lbl_connection found = connection(i, SECOND, 1);

		lbl_seen_add(&seen, &found);
	}
	end();
	CHECK(seen.n == LBL_SEEN_MAX && seen.forgotten == 1);
	CHECK(close_at(0, 2 * SECOND, NULL) == SECOND);
	CHECK(!close_at(LBL_SEEN_MAX, 2 * SECOND, NULL));
	lbl_seen_clear(&seen);
	CHECK(!seen.n && !close_at(1, 2 * SECOND, NULL));
	see(1, SECOND, 1);
	CHECK(close_at(1, 2 * SECOND, NULL) == SECOND);
	lbl_seen_destroy(&seen);
}

static void test_no_memory_is_counted(void)
{
	struct lbl_connection found = connection(1, SECOND, 1);

	no_memory = true;
	CHECK(lbl_seen_init(&seen, 1) == -ENOMEM);
	no_memory = false;
	REQUIRE(!lbl_seen_init(&seen, 1));
	no_memory = true;
	begin();
	lbl_seen_add(&seen, &found);
	end();
	no_memory = false;
	CHECK(seen.n == 0 && seen.forgotten == 1);
	see(1, SECOND, 1);
	CHECK(close_at(1, 2 * SECOND, NULL) == SECOND);
	lbl_seen_destroy(&seen);
}

/* The scan has read the entry, then the connection ends and the entry is deleted. */
static void test_a_close_during_a_scan_counts(void)
{
	struct lbl_connection found = connection(1, SECOND, 1);

	REQUIRE(!lbl_seen_init(&seen, 1000));
	begin();
	CHECK(!close_at(1, 2 * SECOND, NULL));
	lbl_seen_add(&seen, &found);
	end();
	CHECK(!close_at(1, 3 * SECOND, NULL));
	see(1, 4 * SECOND, 1);
	CHECK(close_at(1, 5 * SECOND, NULL) == 4 * SECOND);
	lbl_seen_destroy(&seen);
}

/* A close is no reason to remember a connection that the map does not have. */
static void test_unknown_closes_take_no_memory(void)
{
	uint32_t i;

	REQUIRE(!lbl_seen_init(&seen, 1000));
	begin();
	end();
	for (i = 0; i < 1000; i++)
		CHECK(!close_at(i, 2 * SECOND, NULL));
	CHECK(!seen.n);
	lbl_seen_destroy(&seen);
}

/* Creation times of 0, and events from the end of time. */
static void test_extreme_times(void)
{
	struct lbl_connection look = connection(1, 0, 1);

	REQUIRE(!lbl_seen_init(&seen, 1000));
	see(1, 0, 1);
	CHECK(!close_at(1, SECOND, &look));
	see(2, SECOND, 1);
	CHECK(close_at(2, UINT64_MAX, NULL) == SECOND);
	see(2, 2 * SECOND, 1);
	CHECK(!close_at(2, 3 * SECOND, NULL));
	see(3, SECOND, 1);
	CHECK(close_at(3, 0, NULL) == SECOND); /* the shard rejects it */
	CHECK(close_at(3, 2 * SECOND, NULL) == SECOND);
	lbl_seen_destroy(&seen);
}

/* A connection's packets come, and its creation time stays. */
static void prove(void)
{
	REQUIRE(!lbl_seen_init(&seen, 1000));
	see(100, SECOND, 1);
	see(100, SECOND, 2);
	REQUIRE(seen.stayed && !seen.moved);
}

/* One connection that looked the same misleads until the next one moves, not for good. */
static void test_times_that_stayed_once_may_move(void)
{
	struct lbl_connection look = connection(4, 30 * SECOND, 1);
	uint32_t i;

	prove();
	for (i = 0; i < 3; i++) {
		begin();
		for (uint32_t client = 1; client <= 2; client++) {
			struct lbl_connection found = connection(client, (10 + i) * SECOND, 1 + i);

			lbl_seen_add(&seen, &found);
		}
		end();
		CHECK(seen.moved == (i > 0));
	}
	see(100, SECOND, 3);
	CHECK(seen.moved);
	CHECK(!close_at(1, 20 * SECOND, NULL)); /* it may have been two */
	CHECK(close_at(2, 20 * SECOND, NULL) == 10 * SECOND);
	CHECK(!close_at(4, 31 * SECOND, &look));
	lbl_seen_destroy(&seen);
	/* the close is the first to see it */
	prove();
	see(4, 29 * SECOND, 0);
	CHECK(!close_at(4, 31 * SECOND, &look) && seen.moved);
	lbl_seen_destroy(&seen);
}

/* The earliest of several CPUs' times stays, though each CPU overwrites its own. */
static void test_several_cpus_prove_nothing(void)
{
	struct lbl_connection split = connection(1, SECOND, 1);

	REQUIRE(!lbl_seen_init(&seen, 1000));
	split.is_split = true;
	for (; split.packets_fwd < 4; split.packets_fwd++) {
		begin();
		lbl_seen_add(&seen, &split);
		end();
	}
	CHECK(close_at(1, 2 * SECOND, &split) == SECOND);
	CHECK(!seen.stayed && !seen.moved);
	lbl_seen_destroy(&seen);
}

/* Whose the entry is cannot be told, but another connection's time can move nothing. */
static void test_a_lost_close_proves_nothing(void)
{
	struct lbl_connection other = connection(3, 30 * SECOND, 1), look;

	prove();
	see(1, 10 * SECOND, 5);
	see(1, 20 * SECOND, 5);
	see(2, 10 * SECOND, 5);
	look = connection(2, 20 * SECOND, 5);
	CHECK(!close_at(1, 25 * SECOND, NULL) && !close_at(2, 25 * SECOND, &look));
	CHECK(!seen.moved && close_at(3, 31 * SECOND, &other) == 30 * SECOND);
	see(1, 40 * SECOND, 6); /* that is another's for certain */
	CHECK(close_at(1, 41 * SECOND, NULL) == 40 * SECOND);
	see(1, 50 * SECOND, 5);
	see(1, 60 * SECOND, 5);
	look = connection(1, 60 * SECOND, 5);
	CHECK(!close_at(1, 65 * SECOND, &look) && !seen.moved);
	lbl_seen_destroy(&seen);
}

/* The close is late: the entry is that of the next connection, which has more packets. */
static void test_a_late_close_tells_why_the_time_differs(void)
{
	struct lbl_connection look = connection(1, 20 * SECOND, 9);

	prove();
	see(1, 10 * SECOND, 1);
	CHECK(close_at(1, 12 * SECOND, &look) == 10 * SECOND && !seen.moved);
	CHECK(close_at(1, 23 * SECOND, &look) == 20 * SECOND && !seen.moved);
	lbl_seen_destroy(&seen);
}

static struct {
	uint32_t opened, closed, replaced;
	struct lbl_sighting last;
	uint64_t absent_ns; /* of the last that appeared */
} told;

static void tell(void *ctx, const struct lbl_sighting *sighting)
{
	CHECK(ctx == &told);
	told.opened += !sighting->until_ns;
	told.closed += sighting->until_ns && !sighting->is_replaced;
	told.replaced += sighting->is_replaced;
	told.last = *sighting;
	if (!sighting->until_ns)
		told.absent_ns = sighting->absent_ns;
}

static const struct lbl_seen_watch watch = { tell, &told };

static bool told_is(uint32_t opened, uint32_t closed, uint32_t replaced)
{
	return told.opened == opened && told.closed == closed && told.replaced == replaced;
}

/* Who watches is told of each connection once as it appears, and once as it vanishes. */
static void test_a_watch_is_told_once(void)
{
	uint32_t i;

	REQUIRE(!lbl_seen_init(&seen, 1000));
	memset(&told, 0, sizeof(told));
	lbl_seen_set_watch(&seen, &watch);
	see(1, SECOND, 1);
	CHECK(told_is(1, 0, 0) && told.last.is_exact && !told.last.absent_ns);
	see(1, 2 * SECOND, 3);
	CHECK(told_is(1, 0, 0));
	begin();
	end();
	CHECK(told_is(1, 1, 0));
	CHECK(told.last.birth_ns == SECOND && told.last.look_ns == scan_ns - SECOND);
	for (i = 0; i < 3; i++) {
		begin();
		end();
	}
	CHECK(told_is(1, 1, 0) && !seen.n);
	see(1, 9 * SECOND, 2);
	CHECK(told_is(2, 1, 0));
	CHECK(!told.last.is_exact && told.last.absent_ns == scan_ns - SECOND);
	see(1, 9 * SECOND + 1, 1); /* fewer packets: another connection's */
	CHECK(told_is(3, 1, 1));
	CHECK(told.last.birth_ns == 9 * SECOND + 1);
	lbl_seen_destroy(&seen);
}

/* A scan that does not find all, or remembers not all, proves no absence. */
static void test_incomplete_scans_prove_no_absence(void)
{
	struct lbl_connection found = connection(1, SECOND, 2);

	REQUIRE(!lbl_seen_init(&seen, 1000));
	memset(&told, 0, sizeof(told));
	lbl_seen_set_watch(&seen, &watch);
	begin();
	lbl_seen_end(&seen);
	see(1, SECOND, 2);
	CHECK(!told.last.absent_ns);
	begin();
	lbl_seen_end(&seen);
	CHECK(told_is(1, 0, 0));
	no_memory = true;
	begin();
	lbl_seen_add(&seen, &found);
	found.client_port++;
	seen.n_used = LBL_SEEN_MAX;
	lbl_seen_add(&seen, &found);
	seen.n_used = 1;
	no_memory = false;
	end();
	CHECK(seen.forgotten == 1 && !seen.complete_ns);
	see(3, SECOND, 2);
	CHECK(told_is(2, 1, 0) && !told.absent_ns);
	lbl_seen_destroy(&seen);
}

/* A layout that leaves out what tells two entries apart: the first of a scan counts. */
static void test_a_second_entry_is_counted(void)
{
	struct lbl_connection found = connection(1, SECOND, 5);

	REQUIRE(!lbl_seen_init(&seen, 1000));
	memset(&told, 0, sizeof(told));
	lbl_seen_set_watch(&seen, &watch);
	begin();
	lbl_seen_add(&seen, &found);
	found.packets_fwd = 1;
	lbl_seen_add(&seen, &found);
	end();
	CHECK(told_is(1, 0, 0) && seen.doubled == 1);
	lbl_seen_destroy(&seen);
}

/* Where times do not move, another time without more packets is another connection's. */
static void test_counts_tell_a_connection_from_the_next(void)
{
	struct lbl_connection found = connection(1, 20 * SECOND, 5);

	prove();
	memset(&told, 0, sizeof(told));
	lbl_seen_set_watch(&seen, &watch);
	see(1, 10 * SECOND, 5);
	see(1, 20 * SECOND, 5);
	CHECK(told_is(2, 1, 1) &&
	      told.last.birth_ns == 20 * SECOND); /* the last of prove() is gone */
	found.bytes_fwd = 100;
	begin();
	lbl_seen_add(&seen, &found);
	end();
	CHECK(told_is(2, 1, 1));
	found.packets_fwd = 9;
	found.bytes_fwd = 50;
	begin();
	lbl_seen_add(&seen, &found);
	end();
	CHECK(told_is(3, 1, 2));
	lbl_seen_destroy(&seen);
}

static void test_visits_what_is_there(void)
{
	uint32_t i, visited = 0;

	REQUIRE(!lbl_seen_init(&seen, 1000));
	lbl_seen_set_watch(&seen, &watch);
	begin();
	for (i = 0; i < 3 * LBL_SEEN_SWEPT; i++) {
		struct lbl_connection found = connection(i, SECOND + i, 1);

		lbl_seen_add(&seen, &found);
	}
	end();
	see(7, SECOND, 2); /* the others are gone */
	memset(&told, 0, sizeof(told));
	while (lbl_seen_visit(&seen, &visited, &watch))
		;
	CHECK(told_is(1, 0, 0) && told.last.birth_ns == SECOND);
	lbl_seen_destroy(&seen);
}

int main(void)
{
	RUN(test_connections_are_told_apart);
	RUN(test_what_vanished_is_forgotten);
	RUN(test_memory_is_bounded);
	RUN(test_no_memory_is_counted);
	RUN(test_a_close_during_a_scan_counts);
	RUN(test_unknown_closes_take_no_memory);
	RUN(test_extreme_times);
	RUN(test_times_that_stayed_once_may_move);
	RUN(test_several_cpus_prove_nothing);
	RUN(test_a_lost_close_proves_nothing);
	RUN(test_a_late_close_tells_why_the_time_differs);
	RUN(test_a_watch_is_told_once);
	RUN(test_incomplete_scans_prove_no_absence);
	RUN(test_a_second_entry_is_counted);
	RUN(test_counts_tell_a_connection_from_the_next);
	RUN(test_visits_what_is_there);
	return checks_done();
}
