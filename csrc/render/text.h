/* SPDX-License-Identifier: MIT */
/* Prometheus' text formats, 0.0.4 and 1.0.0, and OpenMetrics 1.0.0. */
#ifndef LBL_RENDER_TEXT_H
#define LBL_RENDER_TEXT_H

#include "render/writer.h"

struct lbl_text_writer {
	struct lbl_writer writer; /* first */
	bool is_openmetrics;
	struct lbl_buffer starts; /* of a histogram's lines, up to the labels of the row */
	const double *started; /* the bounds that they are of; NULL if of none */
	size_t ends[LBL_CLASSIC_MAX + 3]; /* where they end: each bound, +Inf, count, sum */
	struct lbl_buffer labels; /* of the row, and all that follows them but the value */
	struct lbl_buffer
		apart[2]; /* _gcount and _gsum, which are families of their own in 0.0.4 */
};

void lbl_text_init(struct lbl_text_writer *text, struct lbl_buffer *out, bool is_openmetrics);

#endif
