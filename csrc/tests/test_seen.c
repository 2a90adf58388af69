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

int main(void)
{
	RUN(test_connections_are_told_apart);
	RUN(test_what_vanished_is_forgotten);
	RUN(test_memory_is_bounded);
	RUN(test_no_memory_is_counted);
	RUN(test_a_close_during_a_scan_counts);
	RUN(test_unknown_closes_take_no_memory);
	RUN(test_extreme_times);
	return checks_done();
}
