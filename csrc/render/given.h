/* SPDX-License-Identifier: MIT */
/* Families whose samples only user space knows, packed into arrays. */
#ifndef LBL_RENDER_GIVEN_H
#define LBL_RENDER_GIVEN_H

#include "render/writer.h"

/* cdef: begin */
/*
 * Families one after another. A family is three texts (name without suffix, help, unit) and three
 * numbers (enum lbl_family_type; its index in lbl_families(), or LBL_NOT_IN_TABLE; the number of its
 * samples), then its samples. A sample is a text (its name), a number (of labels), two texts per
 * label (name and value, in ascending order of names) and three values: its own; its time in Unix
 * seconds; its label `le` or `quantile` as a number; NaN for none.
 */
struct lbl_given {
	const char *texts; /* side by side, not terminated */
	const uint32_t *lengths; /* of the texts, bytes */
	const uint32_t *numbers;
	const double *values;
	size_t n_families;
	size_t max_labels; /* of a sample */
};

#define LBL_NOT_IN_TABLE 4294967295
/* cdef: end */

struct lbl_given_cursor {
	const char *text;
	const uint32_t *length, *number;
	const double *value;
};

struct lbl_given_family {
	struct lbl_head head;
	uint32_t index, n_samples;
};

struct lbl_given_cursor lbl_given_begin(const struct lbl_given *given);
void lbl_given_family(struct lbl_given_cursor *cursor, struct lbl_given_family *ret);
/* Read a sample; its labels go to `labels`, which has room for `max_labels`. */
void lbl_given_sample(struct lbl_given_cursor *cursor, struct lbl_label *labels,
		      struct lbl_point *ret);

#endif
