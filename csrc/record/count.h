/* SPDX-License-Identifier: MIT */
/* What every recorded event does to its backend's counters, inlined where it matters. */
#ifndef LBL_COUNT_H
#define LBL_COUNT_H

#include "record/shard.h"

static inline const struct lbl_key *lbl_key_of(const struct lbl_event *event)
{
	return (const struct lbl_key *)&event->port;
}

static inline uint32_t lbl_index_of(const struct lbl_table *table, const struct lbl_hot *hot)
{
	return (uint32_t)(hot - table->hot);
}

#ifdef __has_feature /* clang */
#if __has_feature(thread_sanitizer)
#define LBL_TSAN
#endif
#endif
#ifdef __SANITIZE_THREAD__ /* gcc */
#define LBL_TSAN
#endif

/*
 * Add to a counter that readers look at, and return whether its sign bit is set now: then it is time
 * to carry. On x86-64 one instruction, and no atomic one, since there is one writer; but
 * ThreadSanitizer needs to see what happens.
 */
#if defined(__x86_64__) && !defined(LBL_TSAN)
#define LBL_BUMP(bits, suffix)                                                                     \
	static inline bool lbl_bump##bits(uint##bits##_t *p, uint##bits##_t v)                     \
	{                                                                                          \
		bool negative;                                                                     \
                                                                                                   \
		__asm__("add" suffix " %2, %0" : "+m"(*p), "=@ccs"(negative) : "er"(v) : "cc");    \
		return negative;                                                                   \
	}
#else
#define LBL_BUMP(bits, suffix)                                                                     \
	static inline bool lbl_bump##bits(uint##bits##_t *p, uint##bits##_t v)                     \
	{                                                                                          \
		uint##bits##_t sum = (uint##bits##_t)(*p + v);                                     \
                                                                                                   \
		WRITE_ONCE(p, sum);                                                                \
		return sum >> (bits - 1);                                                          \
	}
#endif

LBL_BUMP(8, "b")
LBL_BUMP(32, "l")
LBL_BUMP(64, "q")

/*
 * Carry out of a counter; false if it is full and there is no memory for more. Then what was added
 * is taken back, and a reader may have seen it.
 */
static inline bool lbl_carry(struct lbl_table *table, uint32_t index, uint32_t slot)
{
	uint8_t *counter = lbl_table_counter(table, index, slot);

	if (!lbl_table_count(table, index, slot, 0) || *counter < UINT8_MAX)
		return true;
	WRITE_ONCE(counter, UINT8_MAX - 1);
	return false;
}

static inline void lbl_sum(struct lbl_table *table, struct lbl_hot *hot, uint64_t ns)
{
	if (unlikely(lbl_bump64(&hot->sum, ns)))
		lbl_table_add_sum(table, lbl_index_of(table, hot), 0);
}

/* A reason below LBL_HOT_REASONS or LBL_HOT_OPENED. */
static inline void lbl_count_one(struct lbl_table *table, struct lbl_hot *hot, uint32_t which)
{
	if (unlikely(lbl_bump32(&hot->counts[which], 1)))
		lbl_table_add_count(table, lbl_index_of(table, hot), which, 0);
}

/* Count a duration, but do not sum it up; false if there was no memory to count it in. */
static inline bool lbl_count(struct lbl_shard *shard, uint32_t index, uint64_t ns)
{
	uint32_t slot = lbl_slot(shard->buckets, ns);

	return likely(!lbl_bump8(lbl_table_counter(&shard->table, index, slot), 1)) ||
	       lbl_carry(&shard->table, index, slot);
}

#endif
