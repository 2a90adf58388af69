// SPDX-License-Identifier: MIT
#include <math.h>
#include <stdlib.h>

#include "hist/read.h"
#include "track/window.h"

#define NS_PER_S 1000000000ULL

/* ---- which backends ---- */

static bool is_selected(const struct lbl_history_entry *entry,
			const struct lbl_selection *selection)
{
	if (!entry->is_used || selection->which == LBL_SELECT_ALL)
		return entry->is_used;
	return entry->key.name == selection->name &&
	       (selection->which == LBL_SELECT_PROXY ||
		(entry->key.port == selection->port &&
		 !memcmp(entry->key.addr, selection->addr, sizeof(selection->addr))));
}

/* Write the numbers of the entries, of which there are LBL_HISTORY_BACKENDS at most. */
static uint32_t select_entries(const struct lbl_history *history,
			       const struct lbl_selection *selection, uint32_t *entries)
{
	uint32_t n = 0, entry;

	for (entry = 0; entry < history->n_entries; entry++)
		if (is_selected(&history->entries[entry], selection))
			entries[n++] = entry;
	return n;
}

/* What reading needs. */
struct reading {
	struct lbl_sum sum;
	uint32_t n_entries;
	uint32_t entries[LBL_HISTORY_BACKENDS];
	uint16_t slots[LBL_SLOTS_MAX];
	uint64_t counts[LBL_SLOTS_MAX];
};

static int begin(const struct lbl_history *history, enum lbl_metric metric,
		 const struct lbl_selection *selection, struct reading **ret)
{
	struct reading *reading;

	if (metric >= LBL_METRICS || !history->buckets[metric])
		return -EINVAL;
	reading = calloc(1, sizeof(*reading));
	if (!reading)
		return -ENOMEM;
	reading->n_entries = select_entries(history, selection, reading->entries);
	if (!reading->n_entries && selection->which != LBL_SELECT_ALL) {
		free(reading);
		return -ENOENT;
	}
	lbl_sum_clear(&reading->sum);
	*ret = reading;
	return 0;
}

static void add_columns(const struct lbl_history *history, enum lbl_metric metric, size_t first,
			size_t end, struct reading *reading)
{
	const uint8_t *at;
	size_t c;
	uint32_t i;

	for (c = first; c < end; c++) {
		for (i = 0; i < reading->n_entries; i++) {
			at = lbl_column_rows(&history->columns[c], reading->entries[i]);
			at = lbl_history_row(history, at, metric);
			if (at)
				lbl_sum_add(&reading->sum, at);
		}
	}
}

static void add_totals(const struct lbl_history *history, enum lbl_metric metric,
		       struct reading *reading)
{
	const uint8_t *totals = history->totals.at;
	uint32_t i;

	for (i = 0; i < reading->n_entries; i++) {
		uint32_t at = history->entries[reading->entries[i]].total.at;

		if (at)
			lbl_sum_add(&reading->sum, lbl_history_row(history, totals + at, metric));
	}
}

/* ---- a window's sum ---- */

/* `window` has room behind it for the pairs. */
static void fill(const struct lbl_sum *sum, struct lbl_window *window)
{
	memcpy(window->closed, sum->tallies, sizeof(window->closed));
	window->opened = sum->tallies[LBL_TALLY_OPENED];
	window->sum_lo = (uint64_t)sum->sum;
	window->sum_hi = (uint64_t)(sum->sum >> 64);
	window->counts = (uint64_t *)(window + 1);
	window->slots = (uint16_t *)(window->counts + LBL_SLOTS_MAX);
	window->n = lbl_sum_pairs(sum, window->slots, window->counts);
}

static int read_window(const struct lbl_history *history, enum lbl_metric metric,
		       const struct lbl_selection *selection, uint64_t window_ns,
		       struct lbl_window *window)
{
	struct reading *reading;
	struct lbl_span span;
	int err = begin(history, metric, selection, &reading);

	if (err)
		return err;
	if (window_ns) {
		span = lbl_history_span(history, history->n_coarse, history->n_columns, window_ns);
		add_columns(history, metric, span.first, span.end, reading);
	} else {
		span.since_ns = history->n_columns ? history->began_ns : 0;
		span.until_ns = history->n_columns ? history->sampled_ns : 0;
		add_totals(history, metric, reading);
	}
	window->since_ns = span.since_ns;
	window->until_ns = span.until_ns;
	fill(&reading->sum, window);
	free(reading);
	return 0;
}

int lbl_history_window(struct lbl_history *history, enum lbl_metric metric,
		       const struct lbl_selection *selection, uint64_t window_ns,
		       struct lbl_window **ret)
{
	const size_t pair = sizeof(*(*ret)->slots) + sizeof(*(*ret)->counts);
	struct lbl_window *window;
	int err;

	if (window_ns > LBL_FINE_S * NS_PER_S)
		return -EINVAL;
	window = calloc(1, sizeof(*window) + LBL_SLOTS_MAX * pair);
	if (!window)
		return -ENOMEM;
	pthread_mutex_lock(&history->lock);
	err = read_window(history, metric, selection, window_ns, window);
	pthread_mutex_unlock(&history->lock);
	if (err)
		free(window);
	else
		*ret = window;
	return err;
}

void lbl_window_free(struct lbl_window *window)
{
	free(window);
}

/* ---- columns by time ---- */

double lbl_coarse_upper(uint32_t row)
{
	return exp2((double)row / (1 << LBL_COARSE_SCHEMA) + LBL_ZERO_LOG2);
}

/* As lbl_hist_percentile(), of coarse rows. */
static double coarse_percentile(const uint64_t *counts, double q)
{
	uint64_t total = 0, seen = 0;
	uint32_t row;
	double rank, lower;

	for (row = 0; row < LBL_COARSE_ROWS; row++)
		total += counts[row];
	if (!total)
		return NAN;
	rank = ceil(q * (double)total * (1 - 4e-16));
	for (row = 0; row + 1 < LBL_COARSE_ROWS; row++) {
		seen += counts[row];
		if ((double)seen >= rank && seen)
			break;
	}
	if (row == 0)
		return lbl_coarse_upper(0) / 2;
	lower = lbl_coarse_upper(row - 1);
	return 2 * lower * lbl_coarse_upper(row) / (lower + lbl_coarse_upper(row));
}

/* Write a heat's column: the sum of columns [first, end), which are all coarse or all fine. */
static void heat_column(const struct lbl_history *history, enum lbl_metric metric, size_t first,
			size_t end, struct reading *reading, struct lbl_heat *heat)
{
	uint64_t *rows = heat->counts + heat->n * LBL_COARSE_ROWS;
	const bool is_coarse = history->columns[first].is_coarse;
	const struct lbl_sum *sum = &reading->sum;
	uint32_t n, i;

	lbl_sum_clear(&reading->sum);
	add_columns(history, metric, first, end, reading);
	for (i = sum->first; i < sum->end; i++)
		rows[is_coarse ? i : history->coarse_of[metric][i]] += sum->counts[i];
	heat->began_ns[heat->n] = history->columns[first].began_ns;
	heat->ended_ns[heat->n] = history->columns[end - 1].ended_ns;
	if (is_coarse) {
		heat->p50[heat->n] = coarse_percentile(rows, 0.5);
		heat->p99[heat->n] = coarse_percentile(rows, 0.99);
	} else {
		const struct lbl_buckets *buckets = history->buckets[metric];

		n = lbl_sum_pairs(sum, reading->slots, reading->counts);
		heat->p50[heat->n] =
			lbl_hist_percentile(buckets, n, reading->slots, reading->counts, 0.5);
		heat->p99[heat->n] =
			lbl_hist_percentile(buckets, n, reading->slots, reading->counts, 0.99);
	}
	heat->n++;
}

/* Return the end of the columns that are one in a heat: each, or those of a minute. */
static size_t group_end(const struct lbl_history *history, size_t first, size_t end, bool is_long)
{
	const struct lbl_column *columns = history->columns;
	size_t c = first + 1;

	while (is_long && c < end && columns[c].is_coarse == columns[first].is_coarse &&
	       columns[c - 1].ended_ns - columns[first].began_ns < LBL_COLUMN_S * NS_PER_S)
		c++;
	return c;
}

static struct lbl_heat *new_heat(size_t n)
{
	struct lbl_heat *heat = calloc(1, sizeof(*heat));

	if (!heat)
		return NULL;
	heat->began_ns = calloc(n + 1, sizeof(*heat->began_ns));
	heat->ended_ns = calloc(n + 1, sizeof(*heat->ended_ns));
	heat->p50 = calloc(n + 1, sizeof(*heat->p50));
	heat->p99 = calloc(n + 1, sizeof(*heat->p99));
	heat->counts = calloc(n + 1, LBL_COARSE_ROWS * sizeof(*heat->counts));
	if (heat->began_ns && heat->ended_ns && heat->p50 && heat->p99 && heat->counts)
		return heat;
	lbl_heat_free(heat);
	return NULL;
}

static int read_heat(const struct lbl_history *history, enum lbl_metric metric,
		     const struct lbl_selection *selection, uint64_t window_ns,
		     struct lbl_heat **ret)
{
	const bool is_long = window_ns > LBL_FINE_S * NS_PER_S;
	const struct lbl_span span = lbl_history_span(history, is_long ? 0 : history->n_coarse,
						      history->n_columns, window_ns);
	struct lbl_heat *heat;
	struct reading *reading;
	size_t first, end;
	int err = begin(history, metric, selection, &reading);

	if (err)
		return err;
	heat = new_heat(span.end - span.first);
	for (first = span.first; heat && first < span.end; first = end) {
		end = group_end(history, first, span.end, is_long);
		heat_column(history, metric, first, end, reading, heat);
	}
	free(reading);
	*ret = heat;
	return heat ? 0 : -ENOMEM;
}

int lbl_history_heat(struct lbl_history *history, enum lbl_metric metric,
		     const struct lbl_selection *selection, uint64_t window_ns,
		     struct lbl_heat **ret)
{
	int err;

	if (!window_ns || window_ns > LBL_COARSE_S * NS_PER_S)
		return -EINVAL;
	pthread_mutex_lock(&history->lock);
	err = read_heat(history, metric, selection, window_ns, ret);
	pthread_mutex_unlock(&history->lock);
	return err;
}

void lbl_heat_free(struct lbl_heat *heat)
{
	if (!heat)
		return;
	free(heat->began_ns);
	free(heat->ended_ns);
	free(heat->p50);
	free(heat->p99);
	free(heat->counts);
	free(heat);
}
