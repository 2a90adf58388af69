/* SPDX-License-Identifier: MIT */
/*
 * Creation times of connections whose opened event was seen, for closed events without one. The
 * caller keeps others out.
 */
#ifndef LBL_RECORD_BIRTHS_H
#define LBL_RECORD_BIRTHS_H

#include "event/event.h"

/* All that events tell of a connection; IPv4 only. Formats with a client tell no protocol. */
struct lbl_birth_key {
	uint32_t client, vip, target; /* network order */
	uint16_t client_port, vip_port, target_port, unused;
};

_Static_assert(sizeof(struct lbl_birth_key) == 20, "keys compare as bytes: no padding");

struct lbl_birth {
	struct lbl_birth_key key;
	uint32_t used;
	uint64_t created_ns; /* 0 if two could be meant */
};

struct lbl_births {
	uint64_t seed; /* secret: clients choose addresses, and must not choose collisions */
	struct lbl_birth *entries;
	uint32_t mask, n;
};

void lbl_births_init(struct lbl_births *births);
/*
 * Remember the creation time of an opened event's connection. If the same connection is open since
 * another time, two could be meant: then neither is known. Returns 0, 1 if an older entry was
 * evicted (limit 2^20), or -ENOMEM.
 */
int lbl_births_insert(struct lbl_births *births, const struct lbl_decoded_event *event);
/*
 * Remove a connection. Returns whether it was seen opening; `ret` is its creation time in ns, or 0
 * if two could be meant.
 */
bool lbl_births_take(struct lbl_births *births, const struct lbl_decoded_event *event,
		     uint64_t *ret);
/* Free the entries. */
void lbl_births_destroy(struct lbl_births *births);

#endif
