/* SPDX-License-Identifier: MIT */
/* When connections began whose events do not say it. */
#ifndef LBL_RECORD_BIRTHS_H
#define LBL_RECORD_BIRTHS_H

#include <stdint.h>

struct lbl_flow_key {
	uint32_t client, target; /* network order */
	uint16_t client_port, target_port;
};

struct lbl_flow {
	struct lbl_flow_key key;
	uint32_t used;
	uint64_t created_ns;
};

struct lbl_flows {
	uint64_t seed; /* as of struct lbl_table */
	struct lbl_flow *entries;
	uint32_t mask, n;
};

/* Remember or replace. 1 if another of a million had to be forgotten for it, -ENOMEM. */
int lbl_flows_put(struct lbl_flows *flows, const struct lbl_flow_key *key, uint64_t created_ns);
/* Forget, and tell when it was created; 0 if not known. */
uint64_t lbl_flows_take(struct lbl_flows *flows, const struct lbl_flow_key *key);
void lbl_flows_destroy(struct lbl_flows *flows);

#endif
