/* SPDX-License-Identifier: MIT */
/* What every recorded event does to its backend's counters, inlined where it matters. */
#ifndef LBL_COUNT_H
#define LBL_COUNT_H

#include "lbl_internal.h"

static inline const struct lbl_key *lbl_key_of(const struct lbl_event *event)
{
	return (const struct lbl_key *)&event->port;
}

/* Count a duration in its slot; false if there was no memory to count it in. */
static inline bool lbl_count_in(struct lbl_shard *shard, uint32_t index, uint32_t slot, uint64_t ns)
{
	struct lbl_hot *hot = &shard->table.hot[index];
	uint32_t i = slot - hot->base, counter;
	uint64_t sum = hot->sum + ns;

	if (likely(i < hot->len && !__builtin_add_overflow(hot->low[i], 1U, &counter)))
		lbl_store(&hot->low[i], counter);
	else if (lbl_table_count(&shard->table, shard->layout, index, slot, 1))
		return false;
	if (likely((int64_t)sum >= 0))
		lbl_store(&hot->sum, sum);
	else
		lbl_table_add_sum(&shard->table, index, ns);
	return true;
}

static inline bool lbl_count(struct lbl_shard *shard, uint32_t index, uint64_t ns)
{
	return lbl_count_in(shard, index, lbl_slot(shard->layout, ns), ns);
}

static inline void lbl_count_closed(struct lbl_shard *shard, uint32_t index, uint8_t reason)
{
	struct lbl_hot *hot = &shard->table.hot[index];
	uint32_t counter;

	if (likely(reason < LBL_HOT_REASONS &&
		   !__builtin_add_overflow(hot->closed[reason], 1U, &counter)))
		lbl_store(&hot->closed[reason], counter);
	else
		lbl_table_add_closed(&shard->table, index, reason, 1);
}

#endif
