/* SPDX-License-Identifier: MIT */
/* When connections began whose events do not say it. */
#ifndef LBL_RECORD_BIRTHS_H
#define LBL_RECORD_BIRTHS_H

#include <stdint.h>

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
	uint64_t seed; /* as of struct lbl_table */
	struct lbl_birth *entries;
	uint32_t mask, n;
};

/* Remember or replace. 1 if another of a million had to be forgotten for it, -ENOMEM. */
int lbl_births_insert(struct lbl_births *flows, const struct lbl_birth_key *key,
		      uint64_t created_ns);
/* Forget, and return when it was created; 0 if not known. */
uint64_t lbl_births_take(struct lbl_births *flows, const struct lbl_birth_key *key);
void lbl_births_destroy(struct lbl_births *flows);

#endif
