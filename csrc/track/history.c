// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "track/history.h"

enum { HASH_BITS = 15, HASHES = 1 << HASH_BITS };
_Static_assert(HASHES >= 2 * LBL_HISTORY_BACKENDS, "a search in the hash table is short");

#define NS_PER_S 1000000000ULL

/* ---- entries ---- */

static uint32_t hash(const struct lbl_history_key *key)
{
	uint64_t words[3] = { 0 };

	memcpy(words, key, sizeof(*key));
	return (uint32_t)(lbl_mix(words[0] ^ 0x9e3779b97f4a7c15,
				  lbl_mix(words[1] ^ 0xbf58476d1ce4e5b9, words[2] + 1)) >>
			  (64 - HASH_BITS));
}

/* Return the place in the hash table that has the key, or where it belongs. */
static uint32_t *place_of(const struct lbl_history *history, const struct lbl_history_key *key)
{
	uint32_t at = hash(key);

	while (history->hashed[at] &&
	       memcmp(&history->entries[history->hashed[at] - 1].key, key, sizeof(*key)))
		at = (at + 1) % HASHES;
	return &history->hashed[at];
}

uint32_t lbl_history_find(const struct lbl_history *history, const struct lbl_history_key *key)
{
	return *place_of(history, key) - 1;
}

/* Make room: forget the entries that the last sample did not have. */
static void forget_gone(struct lbl_history *history)
{
	uint32_t entry;
	size_t c;

	memset(history->hashed, 0, HASHES * sizeof(*history->hashed));
	history->free_from = 0;
	for (entry = 0; entry < history->n_entries; entry++) {
		struct lbl_history_entry *it = &history->entries[entry];

		it->is_used = it->is_used && it->seen == history->n_samples;
		if (it->is_used) {
			*place_of(history, &it->key) = entry + 1;
			continue;
		}
		for (c = 0; c < history->n_columns; c++)
			if (entry < history->columns[c].n)
				history->columns[c].at[entry] = 0;
	}
}

/* Return a new entry, or UINT32_MAX if there is no room. */
static uint32_t add_entry(struct lbl_history *history, const struct lbl_history_key *key)
{
	uint32_t entry = history->free_from;

	while (entry < history->n_entries && history->entries[entry].is_used)
		entry++;
	history->free_from = entry;
	if (entry == LBL_HISTORY_BACKENDS)
		return UINT32_MAX;
	if (entry == history->n_entries)
		history->n_entries++;
	history->entries[entry] = (struct lbl_history_entry){ .key = *key, .is_used = true };
	*place_of(history, key) = entry + 1;
	return entry;
}

/* ---- a sample ---- */

/* What is being made of a sample, and of the backend that is being visited. */
struct sampling {
	struct lbl_history *history;
	struct lbl_column column;
	struct lbl_packed totals;
	uint64_t cleared;
	uint32_t left_out;
	int err;
	struct lbl_history_entry *entry;
	const uint8_t
		*before; /* its rows in the last sample, as far as they are not read; or NULL */
	bool is_new; /* it was not there in the last sample, so all is of this column */
	bool is_active; /* something happened since the last sample */
	size_t began; /* where its rows begin in the column */
	uint16_t slots[LBL_SLOTS_MAX];
	uint64_t counts[LBL_SLOTS_MAX];
};

static struct lbl_history_entry *entry_of(struct sampling *sampling,
					  const struct lbl_backend_snapshot *row)
{
	struct lbl_history *history = sampling->history;
	struct lbl_history_key key = { .name = row->name, .port = row->port };
	uint32_t entry;

	memcpy(key.addr, row->addr, sizeof(key.addr));
	entry = lbl_history_find(history, &key);
	if (entry == UINT32_MAX)
		entry = add_entry(history, &key);
	if (entry == UINT32_MAX) {
		sampling->left_out++;
		return NULL;
	}
	return &history->entries[entry];
}

/* Take over the rows of the last sample, since nothing happened. */
static void copy_total(struct sampling *sampling, const struct lbl_total *total)
{
	sampling->err = lbl_packed_append(&sampling->totals,
					  sampling->history->totals.at + total->at,
					  total->end - total->at);
	sampling->entry->next.end = (uint32_t)sampling->totals.n;
}

static bool begin_backend(void *context, const struct lbl_backend_snapshot *row, uint64_t activity,
			  uint64_t cleared)
{
	struct sampling *sampling = context;
	struct lbl_history *history = sampling->history;
	const struct lbl_total *total;

	sampling->cleared = cleared;
	/* The overflow backend is one as soon as it has connections; the removed ones never are. */
	if (sampling->err || (!row->name && !(activity && row->port == LBL_OVERFLOW)))
		return false;
	sampling->entry = entry_of(sampling, row);
	if (!sampling->entry)
		return false;
	total = &sampling->entry->total;
	sampling->entry->next.at = (uint32_t)sampling->totals.n;
	sampling->entry->next.activity = activity;
	sampling->entry->next_open = row->open;
	if (total->at && total->activity == activity && history->cleared == cleared) {
		copy_total(sampling, total);
		return false;
	}
	sampling->is_active = false;
	sampling->began = sampling->column.rows.n;
	sampling->before = total->at ? history->totals.at + total->at : NULL;
	/* The last sample may have left it out: then nobody knows when it counted what it has. */
	sampling->is_new = !sampling->before && history->n_samples && !history->left_out;
	return true;
}

static uint32_t put_pair(struct sampling *sampling, uint32_t n, uint16_t slot, uint64_t count)
{
	sampling->slots[n] = slot;
	sampling->counts[n] = count;
	return n + !!count;
}

/*
 * Subtract the pairs of the `old_n` ones at `*at`, which moves behind them. Returns how many differ,
 * which are in the scratch arrays, or -1 if a count went down.
 */
static int subtract_pairs(struct sampling *sampling, const uint8_t **at, uint32_t old_n, uint32_t n,
			  const uint16_t *slots, const uint64_t *counts)
{
	uint32_t slot = UINT32_MAX, put = 0, i = 0;
	uint64_t old = 0;

	for (; old_n; old_n--, i++) {
		*at = lbl_packed_pair(*at, &slot, &old);
		for (; i < n && slots[i] < slot; i++)
			put = put_pair(sampling, put, slots[i], counts[i]);
		if (i == n || slots[i] != slot || counts[i] < old)
			return -1;
		put = put_pair(sampling, put, slots[i], counts[i] - old);
	}
	for (; i < n; i++)
		put = put_pair(sampling, put, slots[i], counts[i]);
	return (int)put;
}

/*
 * Subtract the row at `*before`, and move behind it. Returns false if a count went down. `row` and
 * the scratch pairs become the difference.
 */
static bool subtract(struct sampling *sampling, const uint8_t **before, struct lbl_packed_row *row,
		     const uint16_t *slots, const uint64_t *counts)
{
	const uint8_t *at = *before;
	struct lbl_packed_row old;
	uint32_t k;
	int n;

	at = lbl_packed_row(at, &old);
	for (k = 0; k < LBL_REASONS; k++)
		if (row->tallies[k] < old.tallies[k])
			return false;
	if (row->sum < old.sum)
		return false;
	n = subtract_pairs(sampling, &at, old.n, row->n, slots, counts);
	if (n < 0)
		return false;
	for (k = 0; k < LBL_PACKED_TALLIES; k++)
		row->tallies[k] -= row->tallies[k] < old.tallies[k] ? row->tallies[k]
								    : old.tallies[k];
	row->sum -= old.sum;
	row->n = (uint32_t)n;
	*before = at;
	return true;
}

static bool is_any(const struct lbl_packed_row *row)
{
	uint64_t any = row->n | !!row->sum;
	uint32_t i;

	for (i = 0; i < LBL_PACKED_TALLIES; i++)
		any |= row->tallies[i];
	return any;
}

/* Append what is new of a row to the column. */
static int add_difference(struct sampling *sampling, struct lbl_packed_row *row,
			  const uint16_t *slots, const uint64_t *counts)
{
	const struct lbl_packed_row none = { .n = 0 };

	if (sampling->before) {
		if (subtract(sampling, &sampling->before, row, slots, counts)) {
			slots = sampling->slots;
			counts = sampling->counts;
		} else {
			sampling->before = lbl_packed_skip(sampling->before);
		}
	} else if (!sampling->is_new) {
		*row = none;
	}
	sampling->is_active = sampling->is_active || is_any(row);
	return lbl_packed_add(&sampling->column.rows, row, slots, counts);
}

static void end_backend(struct sampling *sampling)
{
	struct lbl_history_entry *entry = sampling->entry;

	entry->next.end = (uint32_t)sampling->totals.n;
	if (sampling->is_active)
		sampling->column.at[entry - sampling->history->entries] = (uint32_t)sampling->began;
	else
		sampling->column.rows.n = sampling->began;
}

static int visit(void *context, enum lbl_metric metric, const struct lbl_backend_snapshot *row,
		 const uint16_t *slots, const uint64_t *counts)
{
	struct sampling *sampling = context;
	struct lbl_packed_row packed = { .sum = (lbl_u128)row->sum_hi << 64 | row->sum_lo,
					 .n = row->n };
	int err;

	if (metric == LBL_LIFETIME) {
		memcpy(packed.tallies, row->closed, sizeof(row->closed));
		packed.tallies[LBL_TALLY_OPENED] = row->opened;
	}
	err = lbl_packed_add(&sampling->totals, &packed, slots, counts);
	if (!err)
		err = add_difference(sampling, &packed, slots, counts);
	if (!err && metric == sampling->history->last_metric)
		end_backend(sampling);
	return err;
}

static int reserve_column(struct lbl_history *history)
{
	size_t larger = history->capacity ? 2 * history->capacity : 64;
	struct lbl_column *columns;

	if (history->n_columns < history->capacity)
		return 0;
	columns = reallocarray(history->columns, larger, sizeof(*columns));
	if (!columns)
		return -ENOMEM;
	history->columns = columns;
	history->capacity = larger;
	return 0;
}

static void give_up(struct sampling *sampling)
{
	struct lbl_history *history = sampling->history;
	uint32_t entry;

	for (entry = 0; entry < history->n_entries; entry++)
		history->entries[entry].next = (struct lbl_total){ 0 };
	lbl_column_free(&sampling->column);
	lbl_packed_free(&sampling->totals);
}

/* Take over what was sampled. Entries that it does not have are as new if they come again. */
static void take_over(struct sampling *sampling, uint64_t now_ns)
{
	struct lbl_history *history = sampling->history;
	struct lbl_column *column = &sampling->column;
	uint32_t entry;

	for (entry = 0; entry < history->n_entries; entry++) {
		struct lbl_history_entry *it = &history->entries[entry];

		if (it->next.at)
			it->seen = history->n_samples + 1;
		it->total = it->next;
		it->open = it->next.at ? it->next_open : 0;
		it->next = (struct lbl_total){ 0 };
	}
	lbl_packed_free(&history->totals);
	history->totals = sampling->totals;
	history->left_out = sampling->left_out;
	history->cleared = sampling->cleared;
	lbl_packed_trim(&history->totals);
	if (history->n_samples++) {
		column->began_ns = history->sampled_ns;
		column->ended_ns = now_ns;
		lbl_column_trim(column, history->n_entries);
		history->columns[history->n_columns++] = *column;
	} else {
		lbl_column_free(column);
	}
	history->sampled_ns = now_ns;
}

static int take_sample(struct lbl_history *history, struct lbl_tracker *tracker, uint64_t now_ns)
{
	struct sampling *sampling = calloc(1, sizeof(*sampling));
	const struct lbl_visitor visitor = { .begin = begin_backend, .row = visit };
	const struct lbl_packed_row none = { .n = 0 };
	int err = sampling ? reserve_column(history) : -ENOMEM;

	if (err) {
		free(sampling);
		return err;
	}
	sampling->history = history;
	err = lbl_column_begin(&sampling->column, LBL_HISTORY_BACKENDS);
	if (!err)
		err = lbl_packed_add(&sampling->totals, &none, NULL, NULL);
	if (!err)
		err = lbl_tracker_visit(tracker, &visitor, sampling);
	if (!err)
		err = sampling->err;
	if (err)
		give_up(sampling);
	else
		take_over(sampling, now_ns);
	free(sampling);
	return err;
}

/* ---- what is kept ---- */

/* Return how many of the oldest fine columns make a coarse one, or 0 if they are too few. */
static size_t minute(const struct lbl_history *history, uint64_t until_ns)
{
	const struct lbl_column *fine = history->columns + history->n_coarse;
	size_t n = history->n_columns - history->n_coarse, i;

	for (i = 0; i < n && fine[i].ended_ns <= until_ns; i++)
		if (fine[i].ended_ns - fine[0].began_ns >= LBL_COLUMN_S * NS_PER_S)
			return i + 1;
	return 0;
}

static size_t bytes_of(const struct lbl_history *history, size_t first, size_t end)
{
	size_t bytes = 0, c;

	for (c = first; c < end; c++)
		bytes += lbl_column_bytes(&history->columns[c]);
	return bytes;
}

static size_t fine_bytes(const struct lbl_history *history)
{
	return history->totals.capacity + bytes_of(history, history->n_coarse, history->n_columns);
}

/* Without memory for merging, what is old stays until the next sample. */
static void merge_until(struct lbl_history *history, uint64_t until_ns, size_t bytes)
{
	size_t n;

	while (fine_bytes(history) > bytes && (n = minute(history, until_ns)))
		if (lbl_history_merge(history, n))
			return;
}

/* The time of so many seconds before the last sample. */
static uint64_t before(const struct lbl_history *history, uint64_t seconds)
{
	uint64_t ns = seconds * NS_PER_S;

	return history->sampled_ns > ns ? history->sampled_ns - ns : 0;
}

static void keep_in_limits(struct lbl_history *history)
{
	merge_until(history, before(history, LBL_FINE_S), 0);
	merge_until(history, before(history, LBL_COLUMN_S), history->bytes_max / 3 * 2);
	while (history->n_coarse &&
	       (history->columns[0].ended_ns <= before(history, LBL_COARSE_S) ||
		bytes_of(history, 0, history->n_coarse) > history->bytes_max / 3))
		lbl_history_forget(history, 1);
}

int lbl_history_sample(struct lbl_history *history, struct lbl_tracker *tracker, uint64_t now_ns)
{
	int err = -EINVAL;

	pthread_mutex_lock(&history->lock);
	if (now_ns > (history->n_samples ? history->sampled_ns : history->began_ns)) {
		if (history->left_out)
			forget_gone(history);
		err = take_sample(history, tracker, now_ns);
	}
	if (!err)
		keep_in_limits(history);
	pthread_mutex_unlock(&history->lock);
	return err;
}

/* ---- the history itself ---- */

/* Native schema 6 to LBL_COARSE_SCHEMA, exact; see lbl_hist_native(). */
static void map_slots(struct lbl_history *history, enum lbl_metric metric)
{
	const struct lbl_buckets *buckets = history->buckets[metric];
	const int shift = LBL_NATIVE_SCHEMA - LBL_COARSE_SCHEMA;
	uint32_t slot;

	for (slot = 0; slot < buckets->n_slots; slot++) {
		int32_t index = (buckets->native[slot] + (1 << shift) - 1) >> shift;

		history->coarse_of[metric][slot] =
			(uint8_t)(index - LBL_ZERO_LOG2 * (1 << LBL_COARSE_SCHEMA));
	}
}

int lbl_history_new(struct lbl_buckets *const *buckets, size_t bytes_max, uint64_t now_ns,
		    struct lbl_history **ret)
{
	struct lbl_history *history;
	enum lbl_metric metric;

	if (!buckets[LBL_LIFETIME] || bytes_max < LBL_HISTORY_BYTES_MIN)
		return -EINVAL;
	history = calloc(1, sizeof(*history));
	if (!history)
		return -ENOMEM;
	pthread_mutex_init(&history->lock, NULL);
	history->bytes_max = bytes_max;
	history->began_ns = now_ns;
	history->entries = calloc(LBL_HISTORY_BACKENDS, sizeof(*history->entries));
	history->hashed = calloc(HASHES, sizeof(*history->hashed));
	if (!history->entries || !history->hashed) {
		lbl_history_free(history);
		return -ENOMEM;
	}
	for (metric = 0; metric < LBL_METRICS; metric++) {
		if (!buckets[metric])
			continue;
		lbl_ref(&buckets[metric]->refs);
		history->buckets[metric] = buckets[metric];
		history->last_metric = metric;
		map_slots(history, metric);
	}
	*ret = history;
	return 0;
}

void lbl_history_free(struct lbl_history *history)
{
	enum lbl_metric metric;
	size_t c;

	if (!history)
		return;
	for (c = 0; c < history->n_columns; c++)
		lbl_column_free(&history->columns[c]);
	for (metric = 0; metric < LBL_METRICS; metric++)
		lbl_buckets_free(history->buckets[metric]);
	free(history->columns);
	lbl_packed_free(&history->totals);
	free(history->hashed);
	free(history->entries);
	pthread_mutex_destroy(&history->lock);
	free(history);
}

void lbl_history_info(struct lbl_history *history, struct lbl_history_info *ret)
{
	size_t n;
	uint32_t entry;

	pthread_mutex_lock(&history->lock);
	n = history->n_columns;
	*ret = (struct lbl_history_info){
		.sampled_ns = n ? history->sampled_ns : 0,
		.fine = (uint32_t)(n - history->n_coarse),
		.coarse = (uint32_t)history->n_coarse,
		.left_out = history->left_out,
		.bytes = fine_bytes(history) + bytes_of(history, 0, history->n_coarse) +
			 sizeof(*history) + LBL_HISTORY_BACKENDS * sizeof(*history->entries) +
			 HASHES * sizeof(*history->hashed),
		.bytes_max = history->bytes_max,
	};
	if (ret->fine)
		ret->covered_ns =
			history->sampled_ns - history->columns[history->n_coarse].began_ns;
	for (entry = 0; entry < history->n_entries; entry++)
		ret->backends += history->entries[entry].seen == history->n_samples;
	pthread_mutex_unlock(&history->lock);
}
