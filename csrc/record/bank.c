// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "base/seq.h"
#include "record/bank.h"

static uint32_t n_blocks(const struct lbl_bank *bank)
{
	return bank->row_bytes / LBL_BLOCK_SLOTS;
}

static struct lbl_carried *carried_of(const struct lbl_bank *bank, uint32_t index)
{
	return &bank->carried[index];
}

void lbl_bank_init(struct lbl_bank *bank, struct lbl_buckets *buckets)
{
	uint32_t blocks = (buckets->n_slots + LBL_BLOCK_SLOTS - 1) / LBL_BLOCK_SLOTS;

	lbl_ref(&buckets->refs);
	*bank = (struct lbl_bank){ .row_bytes = blocks * LBL_BLOCK_SLOTS, .buckets = buckets };
}

int lbl_bank_reserve(struct lbl_bank *bank, size_t n)
{
	int err = lbl_array_reserve(&bank->rows_memory, n * bank->row_bytes);

	if (!err)
		err = lbl_array_reserve(&bank->carried_memory, n * sizeof(*bank->carried));
	bank->rows = bank->rows_memory.at;
	bank->carried = (struct lbl_carried *)(void *)bank->carried_memory.at;
	return err;
}

int lbl_bank_grow(struct lbl_bank *bank, size_t n)
{
	if (lbl_array_grow(&bank->rows_memory, n * bank->row_bytes) ||
	    lbl_array_grow(&bank->carried_memory, n * sizeof(*bank->carried)))
		return -ENOMEM;
	return 0;
}

static void free_blocks(const struct lbl_bank *bank, struct lbl_carried *carried)
{
	uint32_t level, i;

	for (level = 0; level < LBL_LEVELS; level++) {
		for (i = 0; carried->blocks[level] && i < n_blocks(bank); i++)
			free(carried->blocks[level][i]);
		free(carried->blocks[level]);
	}
}

void lbl_bank_destroy(struct lbl_bank *bank, size_t n)
{
	size_t usable = bank->carried_memory.usable / sizeof(*bank->carried), i;

	for (i = 0; i < n && i < usable; i++)
		free_blocks(bank, &bank->carried[i]);
	lbl_array_release(&bank->rows_memory);
	lbl_array_release(&bank->carried_memory);
	lbl_buckets_free(bank->buckets);
	*bank = (struct lbl_bank){ 0 };
}

/* ---- counting ---- */

void lbl_bank_add_sum(struct lbl_bank *bank, uint32_t index, lbl_u128 ns)
{
	struct lbl_carried *carried = carried_of(bank, index);
	uint64_t *low = lbl_bank_sum(bank, index);
	lbl_u128 sum = *low + ns;

	if (likely(!(sum >> 63))) {
		WRITE_ONCE(low, (uint64_t)sum);
		return;
	}
	lbl_seq_write_begin(&carried->seq);
	WRITE_ONCE(low, (uint64_t)sum & (UINT64_MAX >> 1));
	lbl_owner_add(&carried->sum, (uint64_t)(sum >> 63));
	lbl_seq_write_end(&carried->seq);
}

/*
 * Return a slot's counter of a level, allocated on demand; NULL if memory is exhausted. Readers may
 * be at work.
 */
static uint32_t *counter_at(const struct lbl_bank *bank, struct lbl_carried *carried,
			    enum lbl_level level, uint32_t slot)
{
	struct lbl_block **blocks = carried->blocks[level], *block;

	if (!blocks) {
		blocks = calloc(n_blocks(bank), sizeof(*blocks));
		if (!blocks)
			return NULL;
		__atomic_store_n(&carried->blocks[level], blocks, __ATOMIC_RELEASE);
	}
	block = blocks[slot / LBL_BLOCK_SLOTS];
	if (!block) {
		block = calloc(1, sizeof(*block));
		if (!block)
			return NULL;
		__atomic_store_n(&blocks[slot / LBL_BLOCK_SLOTS], block, __ATOMIC_RELEASE);
	}
	return &block->count[slot % LBL_BLOCK_SLOTS];
}

static int carry(const struct lbl_bank *bank, struct lbl_carried *carried, uint8_t *level0,
		 uint32_t slot, uint64_t sum)
{
	uint32_t *level1 = counter_at(bank, carried, LBL_LEVEL1, slot), *level2 = NULL;
	uint64_t total;

	if (!level1)
		return -ENOMEM;
	total = *level1 + (sum >> 7);
	if (total >> 32) {
		level2 = counter_at(bank, carried, LBL_LEVEL2, slot);
		if (!level2)
			return -ENOMEM;
	}
	lbl_seq_write_begin(&carried->seq);
	WRITE_ONCE(level0, (uint8_t)(sum & 127));
	WRITE_ONCE(level1, (uint32_t)total);
	if (level2)
		lbl_owner_add(level2, (uint32_t)(total >> 32));
	lbl_seq_write_end(&carried->seq);
	return 0;
}

int lbl_bank_add(struct lbl_bank *bank, uint32_t index, uint32_t slot, uint64_t n)
{
	uint8_t *level0 = lbl_bank_counter(bank, index, slot);
	uint64_t sum = *level0 + n;

	if (sum >> 7)
		return carry(bank, carried_of(bank, index), level0, slot, sum);
	WRITE_ONCE(level0, (uint8_t)sum);
	return 0;
}

bool lbl_bank_carry(struct lbl_bank *bank, uint32_t index, uint8_t *counter)
{
	uint32_t slot = (uint32_t)(counter - lbl_bank_counter(bank, index, 0));

	if (!lbl_bank_add(bank, index, slot, 0) || *counter < UINT8_MAX)
		return true;
	WRITE_ONCE(counter, UINT8_MAX - 1);
	return false;
}

/* ---- reading ---- */

static const uint32_t *block_at(const struct lbl_carried *carried, enum lbl_level level, uint32_t i)
{
	struct lbl_block **blocks = __atomic_load_n(&carried->blocks[level], __ATOMIC_ACQUIRE);
	const struct lbl_block *block = blocks ? __atomic_load_n(&blocks[i], __ATOMIC_ACQUIRE)
					       : NULL;

	return block ? block->count : NULL;
}

static bool is_zero(const uint8_t *line)
{
	const uint64_t *word = (const void *)line;
	uint64_t any = 0;
	uint32_t i;

	for (i = 0; i < LBL_BLOCK_SLOTS / sizeof(*word); i++)
		any |= READ_ONCE(&word[i]);
	return !any;
}

static void add_block(uint64_t *slots, const uint32_t *block, int shift)
{
	uint32_t i;

	for (i = 0; block && i < LBL_BLOCK_SLOTS; i++)
		slots[i] += (uint64_t)READ_ONCE(&block[i]) << shift;
}

/*
 * Read one cache line of counters, summed over levels. Returns false if all are 0. The seqcount
 * covers one line at a time: a busy backend carries more often than its whole row can be read.
 */
static bool read_line(const struct lbl_bank *bank, uint32_t index, uint32_t number, uint64_t *slots)
{
	const uint8_t *line = lbl_bank_counter(bank, index, number * LBL_BLOCK_SLOTS);
	const struct lbl_carried *carried = carried_of(bank, index);
	const uint32_t *level1, *level2;
	uint32_t seq, i;
	bool any;

	do {
		seq = lbl_seq_read_begin(&carried->seq);
		level1 = block_at(carried, LBL_LEVEL1, number);
		level2 = block_at(carried, LBL_LEVEL2, number);
		any = level1 || !is_zero(line);
		for (i = 0; any && i < LBL_BLOCK_SLOTS; i++)
			slots[i] = READ_ONCE(&line[i]);
		add_block(slots, level1, 7);
		add_block(slots, level2, 39);
	} while (lbl_seq_read_retry(&carried->seq, seq));
	return any;
}

static lbl_u128 read_sum(const struct lbl_bank *bank, uint32_t index)
{
	const struct lbl_carried *carried = carried_of(bank, index);
	lbl_u128 sum;
	uint32_t seq;

	do {
		seq = lbl_seq_read_begin(&carried->seq);
		sum = READ_ONCE(lbl_bank_sum(bank, index)) +
		      ((lbl_u128)READ_ONCE(&carried->sum) << 63);
	} while (lbl_seq_read_retry(&carried->seq, seq));
	return sum;
}

void lbl_totals_clear(struct lbl_totals *totals)
{
	if (totals->end > totals->first)
		memset(totals->slots + totals->first, 0,
		       (totals->end - totals->first) * sizeof(*totals->slots));
	memset(totals, 0, offsetof(struct lbl_totals, slots));
	totals->first = LBL_SLOTS_MAX;
}

static void add_line(const struct lbl_bank *bank, uint32_t index, uint32_t number,
		     struct lbl_totals *totals)
{
	uint32_t first = number * LBL_BLOCK_SLOTS, i;
	uint64_t slots[LBL_BLOCK_SLOTS];

	if (!read_line(bank, index, number, slots))
		return;
	for (i = 0; i < LBL_BLOCK_SLOTS; i++)
		totals->slots[first + i] += slots[i];
	if (first < totals->first)
		totals->first = first;
	if (first + LBL_BLOCK_SLOTS > totals->end)
		totals->end = first + LBL_BLOCK_SLOTS;
}

void lbl_bank_read(const struct lbl_bank *bank, uint32_t index, struct lbl_totals *totals)
{
	uint32_t i;

	totals->sum += read_sum(bank, index);
	for (i = 0; i < n_blocks(bank); i++)
		add_line(bank, index, i, totals);
}

uint64_t lbl_bank_merge(struct lbl_bank *bank, uint32_t index, const struct lbl_totals *totals)
{
	uint64_t lost = 0;
	uint32_t i;

	for (i = totals->first; i < totals->end; i++) {
		if (totals->slots[i] && lbl_bank_add(bank, index, i, totals->slots[i]))
			lost += totals->slots[i];
	}
	lbl_bank_add_sum(bank, index, totals->sum);
	return lost;
}

void lbl_bank_clear(struct lbl_bank *bank, uint32_t index)
{
	struct lbl_carried *carried = carried_of(bank, index);

	free_blocks(bank, carried);
	memset(lbl_bank_counter(bank, index, 0), 0, bank->row_bytes);
	*lbl_bank_sum(bank, index) = 0;
	*carried = (struct lbl_carried){ 0 };
}
