/* SPDX-License-Identifier: MIT */
/* A page in a format: a word per format here, and a line in render.c. */
#ifndef LBL_RENDER_RENDER_H
#define LBL_RENDER_RENDER_H

#include "render/page.h"

/* cdef: begin */
enum lbl_format { LBL_TEXT, LBL_OPENMETRICS, LBL_PROTOBUF, LBL_OTLP };

struct lbl_rendering {
	enum lbl_format format;
	int schema; /* of native histograms; a coarser one if they need too many buckets */
	const struct lbl_given *resource; /* of OTLP, see lbl_otlp_init() */
};

struct lbl_render;

/*
 * Begin to render a page, which outlives it, in pieces. -EINVAL for an unsupported schema, -ENOMEM.
 */
int lbl_render_new(const struct lbl_page *page, const struct lbl_rendering *how,
		   struct lbl_render **ret);
void lbl_render_free(struct lbl_render *render);

/*
 * Set `ret` and `n` to the next bytes, at least `least` (1 or more) if there are so many; they are valid
 * until the next call. `n` is 0 at the end. A piece of protobuf is whole families, and one of
 * OTLP a whole request. -ENOMEM, also if a piece would be more than 2^30 bytes.
 */
int lbl_render_next(struct lbl_render *render, size_t least, const char **ret, size_t *n);
/* cdef: end */

#endif
