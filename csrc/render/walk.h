/* SPDX-License-Identifier: MIT */
/* The walk over the table of families, and over those that were given, which feeds a writer. */
#ifndef LBL_RENDER_WALK_H
#define LBL_RENDER_WALK_H

#include "render/page.h"
#include "render/writer.h"

struct lbl_walk {
	const struct lbl_page *page;
	struct lbl_writer *writer;
	uint32_t next; /* family of the table to look at */
	bool in_family;
	/* The current family: */
	const struct lbl_family *family; /* NULL if it is not in the table */
	uint32_t index; /* in the table; LBL_NOT_IN_TABLE */
	struct lbl_head head;
	char name[128]; /* of its samples */
	size_t shown, row; /* the tracker that is next, and the backend */
	/* What was given: */
	struct lbl_given_cursor cursor;
	size_t n_given; /* families behind the cursor */
	bool has_given; /* one is next: */
	struct lbl_given_family given; /* `n_samples` are yet to read */
	struct lbl_label *given_labels;
};

/* Begin before the first family. -ENOMEM; lbl_walk_destroy() is then legal, too. */
int lbl_walk_init(struct lbl_walk *walk, const struct lbl_page *page, struct lbl_writer *writer);
void lbl_walk_destroy(struct lbl_walk *walk);

/* Write a little more; returns false at the end, or if the writer's buffer failed. */
bool lbl_walk_next(struct lbl_walk *walk);

#endif
