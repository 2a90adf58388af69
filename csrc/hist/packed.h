/* SPDX-License-Identifier: MIT */
/*
 * What happened at a backend between two moments, in as few bytes as possible: most rows have few
 * observations, and most of their slots count one.
 */
#ifndef LBL_HIST_PACKED_H
#define LBL_HIST_PACKED_H

#include "base/util.h"

enum { LBL_PACKED_TALLIES = 8, LBL_GAP_BITS = 7, LBL_GAP_LONG = (1 << LBL_GAP_BITS) - 1 };

/* Bytes that grow at the end. Zeroed, it is empty. */
struct lbl_packed {
	uint8_t *at;
	size_t n, capacity;
};

/* A row's numbers; its `n` (slot, count) pairs follow. */
struct lbl_packed_row {
	uint64_t tallies[LBL_PACKED_TALLIES];
	lbl_u128 sum; /* of the observations */
	uint32_t n;
};

/*
 * Append a row: its pairs have ascending slots, and no count is 0. Returns 0 or -ENOMEM, with nothing
 * appended.
 */
int lbl_packed_add(struct lbl_packed *packed, const struct lbl_packed_row *row,
		   const uint16_t *slots, const uint64_t *counts);

/* Append `n` bytes of rows from elsewhere. Likewise. */
int lbl_packed_append(struct lbl_packed *packed, const uint8_t *rows, size_t n);

/* Give back what is reserved beyond the end. */
void lbl_packed_trim(struct lbl_packed *packed);
void lbl_packed_free(struct lbl_packed *packed);

/* Read the row that begins at `at`. Returns where its pairs begin. */
const uint8_t *lbl_packed_row(const uint8_t *at, struct lbl_packed_row *ret);

/* Return the end of the row that begins at `at`. */
const uint8_t *lbl_packed_skip(const uint8_t *at);

static inline const uint8_t *lbl_packed_number(const uint8_t *at, uint64_t *ret)
{
	uint32_t shift = 7;

	*ret = *at & 0x7f;
	for (; *at++ & 0x80; shift += 7)
		*ret |= (uint64_t)(*at & 0x7f) << shift;
	return at;
}

/* Read a pair. `slot` is the slot of the pair before, or UINT32_MAX for the first. */
static inline const uint8_t *lbl_packed_pair(const uint8_t *at, uint32_t *slot, uint64_t *count)
{
	uint8_t token = *at++;
	uint64_t more = 0;

	*slot += 1 + (token & LBL_GAP_LONG);
	if (unlikely((token & LBL_GAP_LONG) == LBL_GAP_LONG)) {
		at = lbl_packed_number(at, &more);
		*slot += (uint32_t)more;
	}
	*count = 1;
	if (token >> LBL_GAP_BITS) {
		at = lbl_packed_number(at, count);
		*count += 2;
	}
	return at;
}

#endif
