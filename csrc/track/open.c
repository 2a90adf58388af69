// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "track/open.h"

int64_t lbl_open_of(const struct lbl_part *parts, size_t n)
{
	struct lbl_tallies tallies = { 0 };
	size_t i;

	for (i = 0; i < n; i++)
		lbl_shard_tallies(parts[i].shard, parts[i].index, &tallies);
	return tallies.open;
}

static uint64_t magnitude(int64_t n)
{
	return n < 0 ? -(uint64_t)n : (uint64_t)n;
}

/* Of the overflow backend. */
static int64_t open_in_overflow(const struct lbl_tracker *tracker)
{
	struct lbl_tallies tallies = { 0 };
	size_t i;

	for (i = 0; i < tracker->n_attached; i++)
		lbl_shard_tallies(tracker->attached[i].shard, 0, &tallies);
	return tallies.open;
}

/*
 * Where rows became free, and where another ring's shard has room, what opened in the overflow
 * backend may close in a row of its own, and the other way round.
 */
uint64_t lbl_open_error(const struct lbl_tracker *tracker, uint64_t lost)
{
	bool rows_differ = tracker->rows_freed || tracker->n_attached > 1;

	return lost - tracker->lost_before + tracker->open_removed +
	       (rows_differ ? magnitude(open_in_overflow(tracker)) : 0);
}

void lbl_open_forget(struct lbl_tracker *tracker, const struct lbl_part *parts, size_t n)
{
	struct lbl_tallies tallies = { 0 };
	size_t i;

	tracker->open_removed += magnitude(lbl_open_of(parts, n));
	tracker->rows_freed = true;
	for (i = 0; i < n; i++) {
		lbl_shard_tallies(parts[i].shard, parts[i].index, &tallies);
		parts[i].shard->table.cold[parts[i].index].open_before = 0;
	}
	if (tallies.open_before > 0) /* they go on to count as opened, where the rows' counts go */
		parts[0].shard->table.cold[parts[0].index].open_before = tallies.open_before;
}

void lbl_open_restart(struct lbl_tracker *tracker, uint64_t lost)
{
	tracker->lost_before = lost;
	tracker->open_removed = 0;
	tracker->rows_freed = false;
}
