// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "track/columns.h"

/* ---- sums of rows ---- */

void lbl_sum_clear(struct lbl_sum *sum)
{
	if (sum->end > sum->first)
		memset(sum->counts + sum->first, 0,
		       (sum->end - sum->first) * sizeof(sum->counts[0]));
	memset(sum->tallies, 0, sizeof(sum->tallies));
	sum->sum = 0;
	sum->first = LBL_SLOTS_MAX;
	sum->end = 0;
}

static const uint8_t *add_head(struct lbl_sum *sum, const uint8_t *at, uint32_t *n)
{
	struct lbl_packed_row row;
	uint32_t i;

	at = lbl_packed_row(at, &row);
	for (i = 0; i < LBL_PACKED_TALLIES; i++)
		sum->tallies[i] += row.tallies[i];
	sum->sum += row.sum;
	*n = row.n;
	return at;
}

static void widen(struct lbl_sum *sum, uint32_t slot)
{
	if (slot < sum->first)
		sum->first = slot;
	if (slot >= sum->end)
		sum->end = slot + 1;
}

const uint8_t *lbl_sum_add(struct lbl_sum *sum, const uint8_t *at)
{
	uint32_t slot = UINT32_MAX, n, i;
	uint64_t count;

	at = add_head(sum, at, &n);
	for (i = 0; i < n; i++) {
		at = lbl_packed_pair(at, &slot, &count);
		if (i == 0)
			widen(sum, slot);
		sum->counts[slot] += count;
	}
	if (n)
		widen(sum, slot);
	return at;
}

const uint8_t *lbl_sum_add_coarse(struct lbl_sum *sum, const uint8_t *at, const uint8_t *coarse_of)
{
	uint32_t slot = UINT32_MAX, n, i;
	uint64_t count;

	at = add_head(sum, at, &n);
	for (i = 0; i < n; i++) {
		at = lbl_packed_pair(at, &slot, &count);
		if (i == 0)
			widen(sum, coarse_of[slot]);
		sum->counts[coarse_of[slot]] += count;
	}
	if (n)
		widen(sum, coarse_of[slot]);
	return at;
}

uint32_t lbl_sum_pairs(const struct lbl_sum *sum, uint16_t *slots, uint64_t *counts)
{
	uint32_t n = 0, slot;

	for (slot = sum->first; slot < sum->end; slot++) {
		if (!sum->counts[slot])
			continue;
		slots[n] = (uint16_t)slot;
		counts[n++] = sum->counts[slot];
	}
	return n;
}

/* ---- columns ---- */

int lbl_column_begin(struct lbl_column *column, uint32_t n)
{
	const struct lbl_packed_row none = { .n = 0 };

	column->n = n;
	column->at = calloc(n + 1UL, sizeof(*column->at));
	return column->at ? lbl_packed_add(&column->rows, &none, NULL, NULL) : -ENOMEM;
}

void lbl_column_trim(struct lbl_column *column, uint32_t n)
{
	uint32_t *at = realloc(column->at, (n + 1UL) * sizeof(*at));

	lbl_packed_trim(&column->rows);
	if (!at)
		return;
	column->at = at;
	column->n = n;
}

void lbl_column_free(struct lbl_column *column)
{
	free(column->at);
	lbl_packed_free(&column->rows);
}

size_t lbl_column_bytes(const struct lbl_column *column)
{
	return sizeof(*column) + column->n * sizeof(*column->at) + column->rows.capacity;
}

void lbl_history_forget(struct lbl_history *history, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		lbl_column_free(&history->columns[i]);
	history->n_columns -= n;
	history->n_coarse -= n;
	memmove(history->columns, history->columns + n,
		history->n_columns * sizeof(*history->columns));
}

struct lbl_span lbl_history_span(const struct lbl_history *history, size_t first, size_t end,
				 uint64_t window_ns)
{
	const struct lbl_column *columns = history->columns;
	struct lbl_span span = { .first = end, .end = end };

	if (first == end)
		return span;
	span.until_ns = columns[end - 1].ended_ns;
	while (span.first > first) {
		const struct lbl_column *next = &columns[span.first - 1];

		if (span.until_ns - (next->began_ns + (next->ended_ns - next->began_ns) / 2) >
		    window_ns)
			break;
		span.first--;
	}
	if (span.first < end)
		span.since_ns = columns[span.first].began_ns;
	else
		span.until_ns = 0;
	return span;
}

const uint8_t *lbl_history_row(const struct lbl_history *history, const uint8_t *at,
			       enum lbl_metric metric)
{
	enum lbl_metric before;

	for (before = 0; at && before < metric; before++)
		if (history->buckets[before])
			at = lbl_packed_skip(at);
	return at;
}

/* What merging needs besides the columns. */
struct merge {
	struct lbl_sum sums[LBL_METRICS];
	uint16_t slots[LBL_COARSE_ROWS];
	uint64_t counts[LBL_COARSE_ROWS];
};

static void add_rows(const struct lbl_history *history, const uint8_t *at, struct merge *merge)
{
	enum lbl_metric metric;

	for (metric = 0; metric < LBL_METRICS; metric++)
		if (history->buckets[metric])
			at = lbl_sum_add_coarse(&merge->sums[metric], at,
						history->coarse_of[metric]);
}

static int put_rows(const struct lbl_history *history, struct merge *merge, struct lbl_packed *rows)
{
	enum lbl_metric metric;
	int err = 0;

	for (metric = 0; metric < LBL_METRICS && !err; metric++) {
		struct lbl_sum *sum = &merge->sums[metric];
		struct lbl_packed_row row = { .sum = sum->sum };

		if (!history->buckets[metric])
			continue;
		memcpy(row.tallies, sum->tallies, sizeof(row.tallies));
		row.n = lbl_sum_pairs(sum, merge->slots, merge->counts);
		err = lbl_packed_add(rows, &row, merge->slots, merge->counts);
		lbl_sum_clear(sum);
	}
	return err;
}

static int merge_entries(const struct lbl_history *history, size_t n, struct lbl_column *into)
{
	const struct lbl_column *fine = history->columns + history->n_coarse;
	struct merge *merge = calloc(1, sizeof(*merge));
	int err = merge ? 0 : -ENOMEM;
	uint32_t entry, metric;

	for (metric = 0; metric < LBL_METRICS && merge; metric++)
		lbl_sum_clear(&merge->sums[metric]);
	for (entry = 0; entry < into->n && !err; entry++) {
		bool is_any = false;
		size_t c;

		for (c = 0; c < n; c++) {
			const uint8_t *at = lbl_column_rows(&fine[c], entry);

			if (at)
				add_rows(history, at, merge);
			is_any = is_any || at;
		}
		if (!is_any)
			continue;
		into->at[entry] = (uint32_t)into->rows.n;
		err = put_rows(history, merge, &into->rows);
	}
	free(merge);
	return err;
}

int lbl_history_merge(struct lbl_history *history, size_t n)
{
	struct lbl_column *fine = history->columns + history->n_coarse;
	struct lbl_column into = {
		.began_ns = fine[0].began_ns,
		.ended_ns = fine[n - 1].ended_ns,
		.is_coarse = true,
	};
	int err = lbl_column_begin(&into, history->n_entries);
	size_t i;

	if (!err)
		err = merge_entries(history, n, &into);
	if (err) {
		lbl_column_free(&into);
		return err;
	}
	lbl_column_trim(&into, into.n);
	for (i = 0; i < n; i++)
		lbl_column_free(&fine[i]);
	fine[0] = into;
	history->n_coarse++;
	history->n_columns -= n - 1;
	memmove(fine + 1, fine + n,
		(history->n_columns - history->n_coarse) * sizeof(*history->columns));
	return 0;
}
