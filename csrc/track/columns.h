/* SPDX-License-Identifier: MIT */
/* What a history is made of. */
#ifndef LBL_TRACK_COLUMNS_H
#define LBL_TRACK_COLUMNS_H

#include <pthread.h>

#include "hist/buckets.h"
#include "hist/packed.h"
#include "record/metric.h"

/* cdef: begin */
/*
 * A column is what happened between two samples. Fine columns tell slots apart; what is older is
 * kept as coarse columns, of native schema LBL_COARSE_SCHEMA.
 */
enum {
	LBL_FINE_S = 900,
	LBL_COARSE_S = 4 * 3600, /* all of the history */
	LBL_COLUMN_S = 60, /* of a coarse column, or a little more */
	LBL_COARSE_SCHEMA = 2,
	LBL_COARSE_ROWS = 178, /* row r ends at 2^(r / 4 - 20) s; the last one at 2^24.25 s */
	LBL_HISTORY_BACKENDS = 16384, /* those beyond are left out */
	LBL_HISTORY_BYTES_MIN = 1 << 20,
};
/* cdef: end */

/* A row's tallies: of connections that closed, by enum lbl_reason, and that opened. */
enum { LBL_TALLY_OPENED = LBL_REASONS };
_Static_assert(LBL_REASONS + 1 == LBL_PACKED_TALLIES, "a row has all tallies");
_Static_assert(LBL_COARSE_ROWS == ((LBL_TOP_LOG2 - LBL_ZERO_LOG2) << LBL_COARSE_SCHEMA) + 2,
	       "the first row is the zero bucket, the last one is beyond the highest bound");

/*
 * A backend has a row per recorded latency, in the order of enum lbl_metric, one behind the other
 * from at[entry] in `rows` on; 0 is no row. The first one, the lifetime's, has the tallies.
 */
struct lbl_column {
	uint64_t began_ns, ended_ns;
	bool is_coarse; /* the slots of its pairs are coarse rows */
	uint32_t n; /* entries that `at` has */
	uint32_t *at;
	struct lbl_packed rows;
};

/* The key is as in struct lbl_backend_snapshot. */
struct lbl_history_key {
	uint16_t name, port;
	uint8_t addr[16];
};

/* Rows in [at, end) of `totals`; none if `at` is 0. */
struct lbl_total {
	uint32_t at, end;
	uint64_t activity; /* see struct lbl_visitor */
};

struct lbl_history_entry {
	struct lbl_history_key key;
	bool is_used;
	uint64_t seen; /* number of the last sample that had it */
	uint64_t open;
	struct lbl_total total; /* all that was counted, in the last sample */
	struct lbl_total
		next; /* the same in a sample that is being taken, and what is open in it */
	uint64_t next_open;
};

struct lbl_history {
	pthread_mutex_t lock; /* taken before the tracker's */
	struct lbl_buckets *buckets[LBL_METRICS];
	uint8_t coarse_of[LBL_METRICS][LBL_SLOTS_MAX]; /* slot to coarse row */
	enum lbl_metric last_metric; /* of the recorded ones */
	size_t bytes_max;
	uint64_t began_ns, sampled_ns;
	uint64_t n_samples;
	uint32_t left_out;
	struct lbl_history_entry *entries; /* n_entries, of LBL_HISTORY_BACKENDS */
	uint32_t n_entries, free_from; /* those before `free_from` are used */
	uint32_t *hashed; /* entries' numbers + 1 by key, open addressing */
	struct lbl_packed totals; /* rows of the last sample */
	uint64_t cleared; /* see struct lbl_visitor */
	struct lbl_column *columns; /* ascending in time: n_coarse, then fine ones */
	size_t n_columns, n_coarse, capacity;
};

/* Return the entry with this key, or UINT32_MAX. The functions below need the history's lock. */
uint32_t lbl_history_find(const struct lbl_history *history, const struct lbl_history_key *key);

/* Return the row of a latency, of those that begin at `at`; NULL if that is NULL. */
const uint8_t *lbl_history_row(const struct lbl_history *history, const uint8_t *at,
			       enum lbl_metric metric);

/* Return where a column has the entry's rows, or NULL. */
static inline const uint8_t *lbl_column_rows(const struct lbl_column *column, uint32_t entry)
{
	uint32_t at = entry < column->n ? column->at[entry] : 0;

	return at ? column->rows.at + at : NULL;
}

/* Make one coarse column of the first `n` fine ones. Returns 0 or -ENOMEM. */
int lbl_history_merge(struct lbl_history *history, size_t n);

/* Forget the first `n` columns, which are coarse. */
void lbl_history_forget(struct lbl_history *history, size_t n);

/*
 * Give it room for `n` entries, and a first row that nothing leads to. Returns 0 or -ENOMEM. When all
 * is there, trim it to the `n` entries that it has.
 */
int lbl_column_begin(struct lbl_column *column, uint32_t n);
void lbl_column_trim(struct lbl_column *column, uint32_t n);
void lbl_column_free(struct lbl_column *column);
size_t lbl_column_bytes(const struct lbl_column *column);

/* The columns of a window: [first, end), from `since_ns` to `until_ns`. */
struct lbl_span {
	size_t first, end;
	uint64_t since_ns, until_ns;
};

/* Return the span of `window_ns` before the end of the columns [first, end), which it is a part of. */
struct lbl_span lbl_history_span(const struct lbl_history *history, size_t first, size_t end,
				 uint64_t window_ns);

/* Sums of rows: of several columns, backends or both. */
struct lbl_sum {
	uint64_t tallies[LBL_PACKED_TALLIES];
	lbl_u128 sum;
	uint32_t first, end; /* counts outside [first, end) are 0 */
	uint64_t counts[LBL_SLOTS_MAX];
};

/* Make a sum empty. Before the first time, it must be zeroed. */
void lbl_sum_clear(struct lbl_sum *sum);

/* Add a row. Returns its end. */
const uint8_t *lbl_sum_add(struct lbl_sum *sum, const uint8_t *row);

/* The same, with coarse rows for slots. */
const uint8_t *lbl_sum_add_coarse(struct lbl_sum *sum, const uint8_t *row,
				  const uint8_t *coarse_of);

/* Write the pairs; there is room for LBL_SLOTS_MAX. Returns their number. */
uint32_t lbl_sum_pairs(const struct lbl_sum *sum, uint16_t *slots, uint64_t *counts);

#endif
