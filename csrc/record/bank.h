/* SPDX-License-Identifier: MIT */
/*
 * A bank: the counters of one latency for all backends, by the table's index. One owner writes;
 * readers take no lock.
 */
#ifndef LBL_RECORD_BANK_H
#define LBL_RECORD_BANK_H

#include "base/array.h"
#include "base/bump.h"
#include "hist/buckets.h"

/*
 * Level 0 is one byte per slot with 7 bits in use, so that an octave's counters fit into one cache
 * line. Its overflow is carried into level 1, 32 bits per slot, and the overflow of that into level
 * 2: count = level 0 + (level 1 << 7) + (level 2 << 39). Levels 1 and 2 consist of blocks of 64
 * counters, allocated on demand.
 */
enum { LBL_BLOCK_SLOTS = 64, LBL_ROW_MAX = LBL_SLOTS_MAX + LBL_BLOCK_SLOTS - 1 };
enum lbl_level { LBL_LEVEL1, LBL_LEVEL2, LBL_LEVELS };

struct lbl_block {
	uint32_t count[LBL_BLOCK_SLOTS];
};

/* The levels above 0 of one backend. */
struct lbl_carried {
	struct lbl_block **blocks[LBL_LEVELS];
	uint64_t sum; /* in units of 2^63 ns */
	uint32_t seq; /* seqcount around each carry */
};

struct lbl_bank {
	struct lbl_buckets *buckets;
	uint32_t row_bytes; /* bytes of counters per backend: whole cache lines */
	uint8_t *rows; /* level 0 */
	uint8_t *sums; /* ns, low 63 bits: a uint64_t every `sum_stride` bytes */
	uint32_t sum_stride;
	struct lbl_carried *carried;
	struct lbl_array rows_memory, carried_memory;
};

/* Create a bank without room for any backend. Takes a reference to `buckets`. */
void lbl_bank_init(struct lbl_bank *bank, struct lbl_buckets *buckets);
/*
 * Reserve address space for `n` backends; what is new is not usable yet. The caller provides
 * `sums`, so that a backend's sum can share a cache line with other data of an event. The arrays
 * may move, as in lbl_table_reserve(). Returns 0 or -ENOMEM.
 */
int lbl_bank_reserve(struct lbl_bank *bank, size_t n);
static inline void lbl_bank_set_sums(struct lbl_bank *bank, void *sums, uint32_t sum_stride)
{
	bank->sums = sums;
	bank->sum_stride = sum_stride;
}

/* Make the first `n` backends usable. Returns 0 or -ENOMEM. */
int lbl_bank_grow(struct lbl_bank *bank, size_t n);
/* Free the bank, of which `n` backends are in use. */
void lbl_bank_destroy(struct lbl_bank *bank, size_t n);

static inline uint8_t *lbl_bank_counter(const struct lbl_bank *bank, uint32_t index, size_t slot)
{
	return &bank->rows[(size_t)index * bank->row_bytes + slot];
}

static inline uint64_t *lbl_bank_sum(const struct lbl_bank *bank, uint32_t index)
{
	return (uint64_t *)(void *)&bank->sums[(size_t)index * bank->sum_stride];
}

/*
 * Add `n` to a slot's counter, and carry its overflow; n = 0 only carries. On -ENOMEM, nothing has
 * changed.
 */
int lbl_bank_add(struct lbl_bank *bank, uint32_t index, uint32_t slot, uint64_t n);
/* Add to the sum of a backend, and carry its overflow; 0 only carries. */
void lbl_bank_add_sum(struct lbl_bank *bank, uint32_t index, lbl_u128 ns);

/*
 * Carry a counter that was just incremented. Returns false if the counter is full and memory is
 * exhausted; the increment is then undone, though a reader may have seen it.
 */
bool lbl_bank_carry(struct lbl_bank *bank, uint32_t index, uint8_t *counter);

/* Add 1 to a counter of a backend. Returns false like lbl_bank_carry(). */
static inline bool lbl_bank_inc(struct lbl_bank *bank, uint32_t index, uint8_t *counter)
{
	return likely(!lbl_bump8(counter, 1)) || lbl_bank_carry(bank, index, counter);
}

/* Count one duration; the caller adds it to the sum. Returns false like lbl_bank_carry(). */
static inline bool lbl_bank_count(struct lbl_bank *bank, uint32_t index, uint64_t ns)
{
	uint32_t slot = lbl_slot(bank->buckets, ns);

	return lbl_bank_inc(bank, index, lbl_bank_counter(bank, index, slot));
}

/* All counters of a backend, summed over levels: for readers, and for merging banks. */
struct lbl_totals {
	lbl_u128 sum;
	uint32_t first, end; /* slots outside [first, end) are 0 */
	uint64_t slots[LBL_ROW_MAX];
};

void lbl_totals_clear(struct lbl_totals *totals);

/*
 * Add one backend's counters to `totals`. Takes no lock. Each counter is consistent; the set is not
 * a point in time.
 */
void lbl_bank_read(const struct lbl_bank *bank, uint32_t index, struct lbl_totals *totals);

/*
 * Add `totals` to a backend. Returns the number of observations lost because memory was exhausted.
 */
uint64_t lbl_bank_merge(struct lbl_bank *bank, uint32_t index, const struct lbl_totals *totals);

/* Set a backend's counters to zero. The caller excludes readers. */
void lbl_bank_clear(struct lbl_bank *bank, uint32_t index);

#endif
