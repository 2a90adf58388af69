/* SPDX-License-Identifier: MIT */
/* Fold backends beyond a limit into the row "overflow". */
#ifndef LBL_RENDER_FOLD_H
#define LBL_RENDER_FOLD_H

#include "track/snapshot.h"

/*
 * Set `ret` to the rank from which backends are beyond the first `max`, by rank; UINT64_MAX if none
 * is. -ENOMEM.
 */
int lbl_fold_from(const struct lbl_snapshot *snapshot, size_t max, uint64_t *ret);

/*
 * Add all backends from that rank on to the row "overflow", which comes first, and set `ret` to
 * their number. -ENOMEM; the snapshot is then as it was.
 */
int lbl_fold(struct lbl_snapshot *snapshot, uint64_t from, size_t *ret);

#endif
