/* SPDX-License-Identifier: MIT */
/* What every recorded event does to its backend's counters, inlined where it matters. */
#ifndef LBL_COUNT_H
#define LBL_COUNT_H

#include "lbl_internal.h"

static inline const struct lbl_key *lbl_key_of(const struct lbl_event *event)
{
	return (const struct lbl_key *)&event->port;
}

static inline uint32_t lbl_index_of(const struct lbl_table *table, const struct lbl_hot *hot)
{
	return (uint32_t)(hot - table->hot);
}

static inline void lbl_sum(struct lbl_table *table, struct lbl_hot *hot, uint64_t ns)
{
	uint64_t sum = hot->sum + ns;

	if (likely((int64_t)sum >= 0))
		lbl_store(&hot->sum, sum);
	else
		lbl_table_add_sum(table, lbl_index_of(table, hot), ns);
}

/* For reasons below LBL_HOT_REASONS. */
static inline void lbl_count_closed(struct lbl_table *table, struct lbl_hot *hot, uint32_t reason)
{
	uint32_t counter;

	if (likely(!__builtin_add_overflow(hot->closed[reason], 1U, &counter)))
		lbl_store(&hot->closed[reason], counter);
	else
		lbl_table_add_closed(table, lbl_index_of(table, hot), reason, 1);
}

/* Count a duration, but do not sum it up; false if there was no memory to count it in. */
static inline bool lbl_count(struct lbl_shard *shard, uint32_t index, uint64_t ns)
{
	const struct lbl_hot *hot = &shard->table.hot[index];
	uint32_t slot = lbl_slot(shard->layout, ns), i = slot - hot->base;

	if (likely(i < hot->len && hot->recent[i] != UINT8_MAX))
		lbl_store(&hot->recent[i], (uint8_t)(hot->recent[i] + 1));
	else if (lbl_table_count(&shard->table, shard->layout, index, slot, 1))
		return false;
	return true;
}

#endif
