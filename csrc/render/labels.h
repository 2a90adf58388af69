/* SPDX-License-Identifier: MIT */
/* The labels of the samples of the table of families. */
#ifndef LBL_RENDER_LABELS_H
#define LBL_RENDER_LABELS_H

#include <arpa/inet.h>

#include "render/number.h"
#include "render/page.h"
#include "render/writer.h"

/* A backend's, the tracker's and the family's own. */
enum { LBL_OWN_LABELS_MAX = 5 };

/* Labels, and texts that they point to. */
struct lbl_own_labels {
	struct lbl_label at[LBL_OWN_LABELS_MAX];
	size_t n;
	char ip[INET6_ADDRSTRLEN], port[LBL_NUMBER_MAX];
};

/* Add a label where its name belongs. */
void lbl_add_label(struct lbl_own_labels *labels, const char *name, struct lbl_text value);

void lbl_add_backend(struct lbl_own_labels *labels, const struct lbl_shown_tracker *shown,
		     const struct lbl_backend_snapshot *row);

/* Add the tracker's label, if it has one. */
void lbl_add_tracker(struct lbl_own_labels *labels, const struct lbl_shown_tracker *shown);

#endif
