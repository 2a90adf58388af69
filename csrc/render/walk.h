/* SPDX-License-Identifier: MIT */
/* The walk over the table of families, and over those that were given, which feeds a writer. */
#ifndef LBL_RENDER_WALK_H
#define LBL_RENDER_WALK_H

#include "render/page.h"
#include "render/writer.h"

/* Write all of a page. Returns 0 or -ENOMEM. */
int lbl_walk(const struct lbl_page *page, struct lbl_writer *writer);

#endif
