// SPDX-License-Identifier: MIT
/* lbl_history_overview() of window.h. */
#include <math.h>
#include <stdlib.h>

#include "hist/read.h"
#include "track/window.h"

#define NS_PER_S 1000000000ULL
#define CHANCE_OF_DISTRIBUTIONS 1.36 /* Kolmogorov and Smirnov, 95 % */
#define CHANCE_OF_RATES 1.96 /* the same of a normal distribution */

/* ---- which rows ---- */

/* A backend, and bytes that sort as rows do. */
struct place {
	uint8_t order[2 + 16 + 2];
	uint32_t entry;
};

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(((struct place *)0)->order));
}

/* Whether anything was ever counted. Who is only known by name is no row. */
static bool has_count(const struct lbl_history *history, const struct lbl_history_entry *entry)
{
	struct lbl_packed_row row;
	uint64_t any = entry->open;
	uint32_t i;

	if (!entry->total.at)
		return false;
	lbl_packed_row(history->totals.at + entry->total.at, &row);
	for (i = 0; i < LBL_PACKED_TALLIES; i++)
		any |= row.tallies[i];
	return any | row.n;
}

static bool is_in_span(const struct lbl_history *history, uint32_t entry,
		       const struct lbl_span *span)
{
	size_t c;

	for (c = span->first; c < span->end; c++)
		if (lbl_column_rows(&history->columns[c], entry))
			return true;
	return false;
}

static size_t find_places(const struct lbl_history *history, const struct lbl_span *span,
			  struct place *places)
{
	uint32_t entry;
	size_t n = 0;

	for (entry = 0; entry < history->n_entries; entry++) {
		const struct lbl_history_entry *it = &history->entries[entry];
		struct place *place = &places[n];

		if (!it->is_used || !(has_count(history, it) || is_in_span(history, entry, span)))
			continue;
		place->entry = entry;
		place->order[0] = (uint8_t)(it->key.name >> 8);
		place->order[1] = (uint8_t)it->key.name;
		memcpy(place->order + 2, it->key.addr, sizeof(it->key.addr));
		place->order[18] = (uint8_t)(it->key.port >> 8);
		place->order[19] = (uint8_t)it->key.port;
		n++;
	}
	qsort(places, n, sizeof(*places), compare);
	return n;
}

/* ---- a row ---- */

/* The spans of a window and of the one before it; what is read of a backend in them. */
struct work {
	const struct lbl_history *history;
	bool is_of_all_time;
	struct lbl_span now, before;
	double seconds, seconds_before; /* the latter 0 if there is no window before */
	struct lbl_sum sums[LBL_METRICS];
	struct lbl_sum sum_before; /* of lifetimes in coarse rows, and tallies */
	uint64_t coarse[LBL_COARSE_ROWS];
	uint16_t slots[LBL_SLOTS_MAX];
	uint64_t counts[LBL_SLOTS_MAX];
};

static double three_digits(double x)
{
	static const double powers[] = { 1e0,  1e1,  1e2,  1e3,	 1e4,  1e5,  1e6,  1e7,
					 1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
					 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22 };
	int shift;

	if (!(x >= 1e-18 && x <= 1e18))
		return x >= 1e-18 || isnan(x) ? x : 0;
	shift = 2 - (int)floor(log10(x));
	if (shift >= 0) /* a quotient is the double that is nearest to its decimals */
		return nearbyint(x * powers[shift]) / powers[shift];
	return nearbyint(x / powers[-shift]) * powers[-shift];
}

static void add_rows(struct work *work, const uint8_t *at)
{
	enum lbl_metric metric;

	for (metric = 0; metric < LBL_METRICS && at; metric++)
		if (work->history->buckets[metric])
			at = lbl_sum_add(&work->sums[metric], at);
}

static void read_entry(struct work *work, uint32_t entry)
{
	const struct lbl_history *history = work->history;
	enum lbl_metric metric;
	size_t c;

	for (metric = 0; metric < LBL_METRICS; metric++)
		lbl_sum_clear(&work->sums[metric]);
	lbl_sum_clear(&work->sum_before);
	if (work->is_of_all_time && history->entries[entry].total.at)
		add_rows(work, history->totals.at + history->entries[entry].total.at);
	for (c = work->now.first; c < work->now.end; c++)
		add_rows(work, lbl_column_rows(&history->columns[c], entry));
	for (c = work->before.first; c < work->before.end; c++) {
		const struct lbl_column *column = &history->columns[c];
		const uint8_t *at = lbl_column_rows(column, entry);

		if (at && column->is_coarse)
			lbl_sum_add(&work->sum_before, at);
		else if (at)
			lbl_sum_add_coarse(&work->sum_before, at, history->coarse_of[LBL_LIFETIME]);
	}
}

static uint64_t ended(const struct lbl_sum *sum)
{
	uint64_t n = 0;
	uint32_t reason;

	for (reason = 0; reason < LBL_REASONS; reason++)
		if (reason != LBL_REASON_CONNECT_FAILED)
			n += sum->tallies[reason];
	return n;
}

/* The part of the largest difference of two distributions that chance does not explain. */
static double lifetime_change(const uint64_t *now, const uint64_t *before)
{
	double n = 0, m = 0, seen = 0, seen_before = 0, largest = 0;
	uint32_t row;

	for (row = 0; row < LBL_COARSE_ROWS; row++) {
		n += (double)now[row];
		m += (double)before[row];
	}
	if (n == 0 || m == 0)
		return 0;
	for (row = 0; row < LBL_COARSE_ROWS; row++) {
		seen += (double)now[row] / n;
		seen_before += (double)before[row] / m;
		largest = fmax(largest, fabs(seen - seen_before));
	}
	return largest - CHANCE_OF_DISTRIBUTIONS * sqrt((n + m) / (n * m));
}

static double rate_change(double n, double m)
{
	return n + m > 0 ? fabs(n - m) / (n + m) - CHANCE_OF_RATES / sqrt(n + m) : 0;
}

static void put_change(struct work *work, struct lbl_overview *overview, size_t i)
{
	const struct lbl_sum *now = &work->sums[LBL_LIFETIME];
	double lifetime, rate;
	uint32_t slot;

	if (work->seconds_before == 0) {
		overview->change[i] = NAN;
		return;
	}
	memset(work->coarse, 0, sizeof(work->coarse));
	for (slot = now->first; slot < now->end; slot++)
		work->coarse[work->history->coarse_of[LBL_LIFETIME][slot]] += now->counts[slot];
	lifetime = lifetime_change(work->coarse, work->sum_before.counts);
	rate = rate_change((double)ended(now),
			   (double)ended(&work->sum_before) * work->seconds / work->seconds_before);
	if (lifetime <= 0 && rate <= 0)
		return;
	overview->change[i] = three_digits(fmax(lifetime, rate));
	overview->change_in[i] = lifetime >= rate ? LBL_CHANGE_LIFETIME : LBL_CHANGE_RATE;
}

static void put_percentiles(struct work *work, struct lbl_overview *overview, size_t i)
{
	enum lbl_metric metric;

	for (metric = 0; metric < LBL_METRICS; metric++) {
		const struct lbl_buckets *buckets = work->history->buckets[metric];
		const uint16_t *slots = work->slots;
		const uint64_t *counts = work->counts;
		uint32_t n, k;

		if (!buckets)
			continue;
		n = lbl_sum_pairs(&work->sums[metric], work->slots, work->counts);
		overview->p95_of[metric][i] =
			three_digits(lbl_hist_percentile(buckets, n, slots, counts, 0.95));
		if (metric != LBL_LIFETIME)
			continue;
		for (k = 0; k < n; k++)
			overview->count[i] += counts[k];
		overview->p50[i] =
			three_digits(lbl_hist_percentile(buckets, n, slots, counts, 0.5));
		overview->p99[i] =
			three_digits(lbl_hist_percentile(buckets, n, slots, counts, 0.99));
	}
}

static void put_row(struct work *work, uint32_t entry, struct lbl_overview *overview, size_t i)
{
	const struct lbl_history_entry *it = &work->history->entries[entry];
	const struct lbl_sum *sum = &work->sums[LBL_LIFETIME];

	read_entry(work, entry);
	overview->name[i] = it->key.name;
	overview->port[i] = it->key.port;
	memcpy(overview->addr + 16 * i, it->key.addr, sizeof(it->key.addr));
	overview->open[i] = it->open;
	overview->resets[i] = sum->tallies[LBL_REASON_RST];
	overview->failed[i] = sum->tallies[LBL_REASON_CONNECT_FAILED];
	overview->closed_rate[i] = three_digits((double)ended(sum) / work->seconds);
	overview->opened_rate[i] =
		three_digits((double)sum->tallies[LBL_TALLY_OPENED] / work->seconds);
	put_percentiles(work, overview, i);
	put_change(work, overview, i);
}

/* ---- the overview ---- */

/* All columns are one piece of memory behind the struct, the widest first. */
static struct lbl_overview *new_overview(const struct lbl_history *history, size_t n)
{
	const size_t row = (4 + 5 + LBL_METRICS) * 8 + 2 * 2 + 16 + 1;
	struct lbl_overview *overview = calloc(1, sizeof(*overview) + n * row);
	uint64_t *at = (uint64_t *)(overview + 1);
	enum lbl_metric metric;

	if (!overview)
		return NULL;
	overview->n = n;
	overview->open = at;
	overview->count = at += n;
	overview->resets = at += n;
	overview->failed = at += n;
	overview->closed_rate = (double *)(at += n);
	overview->opened_rate = (double *)(at += n);
	overview->p50 = (double *)(at += n);
	overview->p99 = (double *)(at += n);
	overview->change = (double *)(at += n);
	for (metric = 0; metric < LBL_METRICS; metric++)
		overview->p95_of[metric] = history->buckets[metric] ? (double *)(at += n) : NULL;
	overview->p95 = overview->p95_of[LBL_LIFETIME];
	overview->name = (uint16_t *)(at += n);
	overview->port = overview->name + n;
	overview->addr = (uint8_t *)(overview->port + n);
	overview->change_in = overview->addr + 16 * n;
	return overview;
}

static void choose_spans(struct work *work, uint64_t window_ns)
{
	const struct lbl_history *history = work->history;
	const size_t n = history->n_columns;

	work->is_of_all_time = !window_ns;
	if (window_ns) {
		work->now = lbl_history_span(history, history->n_coarse, n, window_ns);
		work->before = lbl_history_span(history, 0, work->now.first, window_ns);
	} else if (n) {
		work->now.since_ns = history->began_ns;
		work->now.until_ns = history->sampled_ns;
	}
	work->seconds = (double)(work->now.until_ns - work->now.since_ns) / 1e9;
	work->seconds_before = (double)(work->before.until_ns - work->before.since_ns) / 1e9;
	if (work->seconds_before < (double)window_ns / 2e9)
		work->seconds_before = 0;
}

static int read_overview(const struct lbl_history *history, uint64_t window_ns, struct work *work,
			 struct lbl_overview **ret)
{
	struct place *places = calloc(history->n_entries + 1UL, sizeof(*places));
	struct lbl_overview *overview;
	size_t n = 0, i;

	if (!places)
		return -ENOMEM;
	work->history = history;
	choose_spans(work, window_ns);
	if (work->now.until_ns)
		n = find_places(history, &work->now, places);
	overview = new_overview(history, n);
	for (i = 0; i < n && overview; i++)
		put_row(work, places[i].entry, overview, i);
	free(places);
	if (!overview)
		return -ENOMEM;
	overview->since_ns = work->now.since_ns;
	overview->until_ns = work->now.until_ns;
	overview->left_out = history->left_out;
	*ret = overview;
	return 0;
}

int lbl_history_overview(struct lbl_history *history, uint64_t window_ns, struct lbl_overview **ret)
{
	struct work *work;
	int err;

	if (window_ns > LBL_FINE_S * NS_PER_S)
		return -EINVAL;
	work = calloc(1, sizeof(*work));
	if (!work)
		return -ENOMEM;
	pthread_mutex_lock(&history->lock);
	err = read_overview(history, window_ns, work, ret);
	pthread_mutex_unlock(&history->lock);
	free(work);
	return err;
}

void lbl_overview_free(struct lbl_overview *overview)
{
	free(overview);
}
