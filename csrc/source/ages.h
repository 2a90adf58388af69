/* SPDX-License-Identifier: MIT */
/* How many connections of each backend are open, and for how long they have been. */
#ifndef LBL_SOURCE_AGES_H
#define LBL_SOURCE_AGES_H

#include <stddef.h>
#include <stdint.h>

/* cdef: begin */
enum { LBL_AGES_BACKENDS = 1 << 13 };

struct lbl_age_row {
	uint8_t addr[16];
	uint16_t port, proxy_id;
	uint64_t open; /* connections */
	uint64_t aged; /* of them, those whose age is known */
	double seconds; /* the sum of these ages */
};

/*
 * `counts` has n_bounds + 1 numbers per row: ages up to each bound, and above the last. Beyond
 * LBL_AGES_BACKENDS backends, the rest is in a row with port 0 and an address of zeros.
 */
struct lbl_ages {
	size_t n, n_bounds;
	struct lbl_age_row *rows;
	uint64_t *counts;
};

/* Legal twice. */
void lbl_ages_free(struct lbl_ages *ages);
/* cdef: end */

struct lbl_age_table {
	struct lbl_ages ages;
	const uint64_t *bounds; /* ns, ascending, inclusive; the caller's */
	uint32_t *heads; /* row + 1 by hash; 0 = none */
	uint64_t seed;
};

/* Make an empty table. Returns 0 or -ENOMEM. */
int lbl_age_table_init(struct lbl_age_table *table, const uint64_t *bounds, size_t n_bounds);
/* Add an open connection to its backend. `age_ns` is NULL if it is not known. */
void lbl_age_table_add(struct lbl_age_table *table, const struct lbl_age_row *backend,
		       const uint64_t *age_ns);
/* Give the rows to the caller, who frees them with lbl_ages_free(), and free the rest. */
void lbl_age_table_end(struct lbl_age_table *table, struct lbl_ages *ret);

#endif
