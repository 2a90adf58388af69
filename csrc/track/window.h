/* SPDX-License-Identifier: MIT */
/*
 * What a history says of a window: the time before the last sample. Columns belong to it whose middle
 * does, so the window begins and ends with samples.
 */
#ifndef LBL_TRACK_WINDOW_H
#define LBL_TRACK_WINDOW_H

#include "track/history.h"

/* cdef: begin */
/* Of which backends: all, a proxy's, or one. Name, port and address as in lbl_backend_snapshot. */
enum lbl_select { LBL_SELECT_ALL, LBL_SELECT_PROXY, LBL_SELECT_BACKEND };

struct lbl_selection {
	enum lbl_select which;
	uint16_t name;
	uint16_t port;
	uint8_t addr[16];
};

/*
 * What happened in the window, summed over the selected backends. Its (slot, count) pairs can be read
 * with hist/read.h.
 */
struct lbl_window {
	uint64_t since_ns, until_ns; /* both 0 if nothing is covered */
	uint64_t closed[LBL_REASONS]; /* of the lifetime; 0 for other latencies */
	uint64_t opened;
	uint64_t sum_lo; /* ns, 128 bits */
	uint64_t sum_hi;
	uint32_t n;
	uint16_t *slots;
	uint64_t *counts;
};

/*
 * Read a window of `window_ns`, at most LBL_FINE_S; or of all time since the counts began, if that is
 * 0. The caller frees it. -ENOENT if the history does not have the backend or proxy, -EINVAL for a
 * longer window or a latency that is not recorded, -ENOMEM.
 */
int lbl_history_window(struct lbl_history *history, enum lbl_metric metric,
		       const struct lbl_selection *selection, uint64_t window_ns,
		       struct lbl_window **ret);
void lbl_window_free(struct lbl_window *window);

/* Counts by time and latency. All columns' arrays have `n` items. */
struct lbl_heat {
	size_t n;
	uint64_t *began_ns, *ended_ns;
	double *p50, *p99; /* s; NaN without observations */
	uint64_t *counts; /* LBL_COARSE_ROWS per column */
};

/*
 * Read the columns of a window of at most LBL_COARSE_S; those of a window longer than LBL_FINE_S are
 * of about LBL_COLUMN_S each. The caller frees it. Errors as above.
 */
int lbl_history_heat(struct lbl_history *history, enum lbl_metric metric,
		     const struct lbl_selection *selection, uint64_t window_ns,
		     struct lbl_heat **ret);
void lbl_heat_free(struct lbl_heat *heat);

/* Return the inclusive upper end of a coarse row in seconds. */
double lbl_coarse_upper(uint32_t row);

/* What changed, see lbl_overview. */
enum lbl_change { LBL_CHANGE_NONE, LBL_CHANGE_LIFETIME, LBL_CHANGE_RATE };

/*
 * All backends in a window, a column per field. Rows are in the order of names' numbers, then of
 * addresses and ports. Times are seconds, NaN without observations; times and rates have three
 * digits.
 */
struct lbl_overview {
	size_t n;
	uint64_t since_ns, until_ns; /* both 0 if nothing is covered; then there are no rows */
	uint32_t left_out;
	uint16_t *name, *port;
	uint8_t *addr; /* 16 bytes per row */
	uint64_t *open, *count, *resets, *failed; /* connections */
	double *closed_rate, *opened_rate; /* per second; closed ones without failed connects */
	double *p50, *p95, *p99; /* of the lifetime */
	double *p95_of[LBL_METRICS]; /* NULL if the tracker does not record it */
	/*
	 * By how much the window differs from the one before it, from 0 to 1; NaN if there is none.
	 * The larger one of: the largest difference of the cumulative distributions, minus what chance
	 * makes of it in 95 % of cases; and |n - m| / (n + m) for the connections that ended, minus
	 * the same.
	 */
	double *change;
	uint8_t *change_in; /* enum lbl_change */
};

/* Read the overview of a window, as lbl_history_window(). The caller frees it. */
int lbl_history_overview(struct lbl_history *history, uint64_t window_ns,
			 struct lbl_overview **ret);
void lbl_overview_free(struct lbl_overview *overview);
/* cdef: end */

#endif
