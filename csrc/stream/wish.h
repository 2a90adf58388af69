/* SPDX-License-Identifier: MIT */
/*
 * Which ring a stream wants that is claimed. Streams of one process that wait for each other's rings
 * in a circle would wait for ever.
 */
#ifndef LBL_STREAM_WISH_H
#define LBL_STREAM_WISH_H

#include <stdbool.h>
#include <stdint.h>

/* The rings are named by the ids of their maps. */
struct lbl_wish {
	struct lbl_wish *next;
	uint32_t has, wants;
};

/*
 * Wish for the ring `wants` while having `has`, instead of what was wished for before. Returns whether
 * that closes a circle.
 */
bool lbl_wish_set(struct lbl_wish *wish, uint32_t has, uint32_t wants);
/* Legal on a zeroed struct. */
void lbl_wish_clear(struct lbl_wish *wish);

#endif
