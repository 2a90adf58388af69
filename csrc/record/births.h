/* SPDX-License-Identifier: MIT */
/*
 * Creation times of connections whose opened event was seen, for closed events without one. The
 * caller holds the shard's lock.
 */
#ifndef LBL_RECORD_BIRTHS_H
#define LBL_RECORD_BIRTHS_H

#include "event/event.h"

/* The connection's tuple, IPv4 only. */
struct lbl_birth_key {
	uint32_t client, target; /* network order */
	uint16_t client_port, target_port;
};

struct lbl_birth {
	struct lbl_birth_key key;
	uint32_t used;
	uint64_t created_ns;
};

struct lbl_births {
	uint64_t seed; /* secret, as in struct lbl_table */
	struct lbl_birth *entries;
	uint32_t mask, n;
};

/*
 * Remember the creation time of an opened event's connection. Returns 0, 1 if an older entry was
 * evicted (limit 2^20), or -ENOMEM.
 */
int lbl_births_insert(struct lbl_births *births, const struct lbl_decoded_event *event);
/* Remove a connection, and return its creation time in ns; 0 if unknown. */
uint64_t lbl_births_take(struct lbl_births *births, const struct lbl_decoded_event *event);
/* Free the entries. Legal on a zeroed struct. */
void lbl_births_destroy(struct lbl_births *births);

#endif
