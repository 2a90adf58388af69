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

/*
 * Render. The caller frees the `n` bytes in `ret` with lbl_free_bytes(). -EINVAL for an unsupported
 * schema; -ENOMEM, also if they would be more than 2^30.
 */
int lbl_render(const struct lbl_page *page, const struct lbl_rendering *how, char **ret, size_t *n);
void lbl_free_bytes(char *bytes);
/* cdef: end */

#endif
