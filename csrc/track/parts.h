/* SPDX-License-Identifier: MIT */
/* The parts of all backends of a tracker: each shard has a part of a backend that it knows. */
#ifndef LBL_TRACK_PARTS_H
#define LBL_TRACK_PARTS_H

#include "track/state.h"

/* Parts of the same backend have equal keys. */
struct lbl_part {
	struct lbl_key key; /* proxy_ref is the name's number, as in all shards' parts */
	uint32_t index;
	uint32_t shard_number;
	struct lbl_shard *shard;
};

/* The caller of the functions below holds the tracker's lock. */

/*
 * Gather all parts in the first `n_shards` shards, of which the own one is the first, sorted by key,
 * so that those of a backend are adjacent. Returns their number, or 0 if memory is exhausted; the
 * caller frees `ret`.
 */
size_t lbl_parts_gather(struct lbl_tracker *tracker, size_t n_shards, struct lbl_part **ret);

/* Gather one backend's parts; `named` has the name's number as proxy_ref. Returns 0 or -ENOMEM. */
int lbl_parts_find(struct lbl_tracker *tracker, const struct lbl_key *named, struct lbl_part **ret,
		   size_t *ret_n);

/* Return the end of the backend whose first part is parts[first]. */
size_t lbl_parts_end(const struct lbl_part *parts, size_t n, size_t first);

#endif
