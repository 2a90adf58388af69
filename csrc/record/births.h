/* SPDX-License-Identifier: MIT */
/*
 * When a connection was created whose closed event does not say it. Those who may know are asked in
 * turn; the first of them is the table of connections that were seen opening, in this file.
 */
#ifndef LBL_RECORD_BIRTHS_H
#define LBL_RECORD_BIRTHS_H

#include "event/event.h"

/* Seen opening, by tuple. */
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
	uint64_t seed; /* a secret, as that of struct lbl_table */
	struct lbl_birth *entries;
	uint32_t mask, n;
};

/*
 * Remember that the event's connection has opened. Returns 1 if an older entry was evicted (limit
 * 2^20), -ENOMEM.
 */
int lbl_births_insert(struct lbl_births *births, const struct lbl_decoded_event *event);
/* Forget it, and return when it was created, ns; 0 if unknown. */
uint64_t lbl_births_take(struct lbl_births *births, const struct lbl_decoded_event *event);
void lbl_births_destroy(struct lbl_births *births);

#endif
