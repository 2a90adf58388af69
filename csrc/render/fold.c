// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "hist/buckets.h"
#include "render/fold.h"

static bool is_overflow(const struct lbl_backend_snapshot *row)
{
	return !row->name && row->port == LBL_OVERFLOW;
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

int lbl_fold_from(const struct lbl_snapshot *snapshot, size_t max, uint64_t *ret)
{
	uint64_t *ranks;
	size_t i, n = 0;

	*ret = UINT64_MAX;
	if (snapshot->n_rows <= max)
		return 0;
	ranks = calloc(snapshot->n_rows, sizeof(*ranks));
	if (!ranks)
		return -ENOMEM;
	for (i = 0; i < snapshot->n_rows; i++) {
		if (snapshot->rows[i].name)
			ranks[n++] = snapshot->rows[i].rank;
	}
	qsort(ranks, n, sizeof(*ranks), compare);
	if (n > max)
		*ret = ranks[max];
	free(ranks);
	return 0;
}

static void add_row(struct lbl_backend_snapshot *sum, const struct lbl_backend_snapshot *row)
{
	lbl_u128 ns = ((lbl_u128)sum->sum_hi << 64 | sum->sum_lo) +
		      ((lbl_u128)row->sum_hi << 64 | row->sum_lo);
	size_t i;

	sum->sum_lo = (uint64_t)ns;
	sum->sum_hi = (uint64_t)(ns >> 64);
	sum->count += row->count;
	sum->opened += row->opened;
	sum->open += row->open;
	sum->probes += row->probes;
	for (i = 0; i < LBL_REASONS; i++)
		sum->closed[i] += row->closed[i];
}

static void add_pairs(uint64_t *totals, const struct lbl_snapshot *snapshot,
		      const struct lbl_backend_snapshot *row)
{
	size_t i;

	for (i = row->first; i < row->first + row->n; i++)
		totals[snapshot->slots[i]] += snapshot->counts[i];
}

/* Append the counts that are not 0. The caller has made room. */
static void put_pairs(struct lbl_snapshot *snapshot, struct lbl_backend_snapshot *row,
		      const uint64_t *totals)
{
	size_t i;

	row->first = snapshot->n_pairs;
	row->n = 0;
	for (i = 0; i < LBL_SLOTS_MAX; i++) {
		if (!totals[i])
			continue;
		snapshot->slots[snapshot->n_pairs] = (uint16_t)i;
		snapshot->counts[snapshot->n_pairs++] = totals[i];
		row->n++;
	}
}

static int make_room(struct lbl_snapshot *snapshot)
{
	size_t n = snapshot->n_pairs + LBL_SLOTS_MAX;
	uint16_t *slots = reallocarray(snapshot->slots, n, sizeof(*slots));
	uint64_t *counts;

	if (!slots)
		return -ENOMEM;
	snapshot->slots = slots;
	counts = reallocarray(snapshot->counts, n, sizeof(*counts));
	if (!counts)
		return -ENOMEM;
	snapshot->counts = counts;
	return 0;
}

/* Rows have room for one that is not a backend, so for the sum of those that go. */
static size_t fold_rows(struct lbl_snapshot *snapshot, uint64_t from, uint64_t *totals)
{
	struct lbl_backend_snapshot sum = { .port = LBL_OVERFLOW }, *rows = snapshot->rows;
	size_t i, n = 0, folded = 0;

	for (i = 0; i < snapshot->n_rows; i++) {
		bool goes = rows[i].name && rows[i].rank >= from;

		folded += goes;
		if (!goes && !is_overflow(&rows[i])) {
			rows[n++] = rows[i];
			continue;
		}
		add_row(&sum, &rows[i]);
		add_pairs(totals, snapshot, &rows[i]);
	}
	if (n == snapshot->n_rows)
		return 0;
	memmove(rows + 1, rows, n * sizeof(*rows));
	put_pairs(snapshot, &sum, totals);
	rows[0] = sum;
	snapshot->n_rows = n + 1;
	return folded;
}

int lbl_fold(struct lbl_snapshot *snapshot, uint64_t from, size_t *ret)
{
	uint64_t *totals;

	*ret = 0;
	if (from == UINT64_MAX)
		return 0;
	totals = calloc(LBL_SLOTS_MAX, sizeof(*totals));
	if (!totals || make_room(snapshot)) {
		free(totals);
		return -ENOMEM;
	}
	*ret = fold_rows(snapshot, from, totals);
	free(totals);
	return 0;
}
