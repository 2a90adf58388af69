/* SPDX-License-Identifier: MIT */
/*
 * A bank holds the counters of one latency for all backends, by index. One owner writes; readers
 * look on without a lock. Which backend an index is, the table knows.
 */
#ifndef LBL_RECORD_BANK_H
#define LBL_RECORD_BANK_H

#include "base/array.h"
#include "base/bump.h"
#include "hist/buckets.h"

/*
 * A slot's counter is a byte, of which its owner lets 7 bits stand, so that an octave's counters
 * are one cache line: level 0. What they exceed that by is carried into level 1, 32 bits per slot,
 * and what those exceed into level 2: count = level 0 + (level 1 << 7) + (level 2 << 39). Blocks of
 * 64 counters of the levels above 0 come when needed.
 */
enum { LBL_BLOCK_SLOTS = 64, LBL_ROW_MAX = LBL_SLOTS_MAX + LBL_BLOCK_SLOTS - 1 };
enum lbl_level { LBL_LEVEL1, LBL_LEVEL2, LBL_LEVELS };

struct lbl_block {
	uint32_t count[LBL_BLOCK_SLOTS];
};

/* What a backend's counters carry into. */
struct lbl_carried {
	struct lbl_block **blocks[LBL_LEVELS];
	uint64_t sum; /* in units of 2^63 ns */
	uint32_t seq; /* a seqcount around every carry */
};

struct lbl_bank {
	struct lbl_buckets *buckets;
	uint32_t row_bytes; /* counters of a backend: whole cache lines */
	uint8_t *rows; /* level 0 */
	uint8_t *sums; /* ns, low 63 bits, a uint64_t every `sum_stride` bytes */
	uint32_t sum_stride;
	struct lbl_carried *carried;
	struct lbl_array rows_memory, carried_memory;
};

/*
 * Room for `max` backends, none usable yet. The sums stand elsewhere, so that a backend's may share
 * a cache line with what else an event touches. -ENOMEM.
 */
int lbl_bank_init(struct lbl_bank *bank, struct lbl_buckets *buckets, size_t max, void *sums,
		  uint32_t sum_stride);
/* Make `n` backends usable. -ENOMEM. */
int lbl_bank_grow(struct lbl_bank *bank, size_t n);
/* `n`: backends in use. */
void lbl_bank_destroy(struct lbl_bank *bank, size_t n);

static inline uint8_t *lbl_bank_counter(const struct lbl_bank *bank, uint32_t index, uint32_t slot)
{
	return &bank->rows[(size_t)index * bank->row_bytes + slot];
}

static inline uint64_t *lbl_bank_sum(const struct lbl_bank *bank, uint32_t index)
{
	return (uint64_t *)(void *)&bank->sums[(size_t)index * bank->sum_stride];
}

/*
 * Add to a slot's counter, and carry what it exceeds its bits by: with n = 0, no more than that.
 * -ENOMEM if there was no block to carry into; then nothing has changed.
 */
int lbl_bank_add(struct lbl_bank *bank, uint32_t index, uint32_t slot, uint64_t n);
void lbl_bank_add_sum(struct lbl_bank *bank, uint32_t index, lbl_u128 ns);

/*
 * Add 1 to a counter of a backend. False if it is full and there is no memory to carry into: then
 * the addition is taken back, and a reader may have seen it.
 */
bool lbl_bank_carry(struct lbl_bank *bank, uint32_t index, uint8_t *counter);

static inline bool lbl_bank_inc(struct lbl_bank *bank, uint32_t index, uint8_t *counter)
{
	return likely(!lbl_bump8(counter, 1)) || lbl_bank_carry(bank, index, counter);
}

static inline void lbl_bank_sum_up(struct lbl_bank *bank, uint32_t index, uint64_t *sum,
				   uint64_t ns)
{
	if (unlikely(lbl_bump64(sum, ns)))
		lbl_bank_add_sum(bank, index, 0);
}

/* Count one duration; the caller adds it to the sum. False as lbl_bank_inc(). */
static inline bool lbl_bank_count(struct lbl_bank *bank, uint32_t index, uint64_t ns)
{
	uint32_t slot = lbl_slot(bank->buckets, ns);

	return lbl_bank_inc(bank, index, lbl_bank_counter(bank, index, slot));
}

/* A backend's counters read out whole: for readers, and for merging one bank into another. */
struct lbl_totals {
	lbl_u128 sum;
	uint32_t first, end; /* slots outside are 0 */
	uint64_t slots[LBL_ROW_MAX];
};

void lbl_totals_clear(struct lbl_totals *totals);

/* Add what one backend has counted. Each counter is consistent; the set is not a point in time. */
void lbl_bank_read(const struct lbl_bank *bank, uint32_t index, struct lbl_totals *totals);

/* Add totals to a backend. Returns how many observations were lost, since memory ran out. */
uint64_t lbl_bank_merge(struct lbl_bank *bank, uint32_t index, const struct lbl_totals *totals);

/* Make a backend as new. No reader may be at work. */
void lbl_bank_clear(struct lbl_bank *bank, uint32_t index);

#endif
