// SPDX-License-Identifier: MIT
/* Backends and their counters. One owner writes; readers look on without a lock. */
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "record/table.h"

enum { FIRST_HASH = 64 };

/* Zeroed memory, of which the kernel backs only what is touched. */
static void *reserve(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* Beyond this, the entries of small pages would not fit into the TLB. */
enum { MANY_BYTES = 1 << 20 };

static void release(void *p, size_t bytes)
{
	if (p)
		munmap(p, bytes);
}

static size_t hash_bytes(const struct lbl_table *table)
{
	return ((size_t)table->hash_mask + 1) * sizeof(*table->hash);
}

/* Have room for `n` backends. */
static int grow(struct lbl_table *table, size_t n)
{
	if (lbl_array_grow(&table->recent_memory, n * table->row_bytes) ||
	    lbl_array_grow(&table->hot_memory, n * sizeof(*table->hot)) ||
	    lbl_array_grow(&table->cold_memory, n * sizeof(*table->cold)))
		return -ENOMEM;
	return 0;
}

static int reserve_all(struct lbl_table *table)
{
	size_t n = (size_t)table->max + 1;

	table->by_id = reserve(LBL_IDS_MAX * sizeof(*table->by_id));
	table->hash = reserve(FIRST_HASH * sizeof(*table->hash));
	if (!table->by_id || !table->hash ||
	    lbl_array_reserve(&table->recent_memory, n * table->row_bytes) ||
	    lbl_array_reserve(&table->hot_memory, n * sizeof(*table->hot)) ||
	    lbl_array_reserve(&table->cold_memory, n * sizeof(*table->cold)))
		return -ENOMEM;
	return grow(table, 1);
}

int lbl_table_init(struct lbl_table *table, uint32_t max, uint32_t n_slots)
{
	memset(table, 0, sizeof(*table));
	table->max = max;
	table->n = 1;
	table->row_bytes = (n_slots + LBL_BLOCK_SLOTS - 1) / LBL_BLOCK_SLOTS * LBL_BLOCK_SLOTS;
	table->hash_mask = FIRST_HASH - 1;
	if (getrandom(&table->seed, sizeof(table->seed), GRND_NONBLOCK) != sizeof(table->seed))
		table->seed = (uintptr_t)table;
	if (reserve_all(table)) {
		lbl_table_destroy(table);
		return -ENOMEM;
	}
	table->recent = table->recent_memory.at;
	table->hot = (struct lbl_hot *)(void *)table->hot_memory.at;
	table->cold = (struct lbl_cold *)(void *)table->cold_memory.at;
	/* No backend's key: who has it is the overflow backend's. */
	memset(&table->hot[0].key, 0xff, sizeof(table->hot[0].key));
	return 0;
}

static uint32_t n_pages(const struct lbl_table *table)
{
	return table->row_bytes / LBL_BLOCK_SLOTS;
}

static void free_pages(const struct lbl_table *table, struct lbl_cold *cold)
{
	uint32_t level, i;

	for (level = 0; level < LBL_LEVELS; level++) {
		for (i = 0; cold->pages[level] && i < n_pages(table); i++)
			free(cold->pages[level][i]);
		free(cold->pages[level]);
	}
}

void lbl_table_destroy(struct lbl_table *table)
{
	uint32_t i;

	for (i = 0; table->cold && i < table->n; i++)
		free_pages(table, &table->cold[i]);
	lbl_array_release(&table->recent_memory);
	lbl_array_release(&table->hot_memory);
	lbl_array_release(&table->cold_memory);
	release(table->by_id, LBL_IDS_MAX * sizeof(*table->by_id));
	release(table->hash, hash_bytes(table));
	memset(table, 0, sizeof(*table));
}

/* ---- which backend ---- */

static bool key_equal(const struct lbl_key *a, const struct lbl_key *b)
{
	return !memcmp(a, b, sizeof(*a));
}

uint32_t lbl_table_find(const struct lbl_table *table, const struct lbl_key *key)
{
	uint64_t hash = lbl_table_hash(table, key), entry;
	uint32_t i;

	for (i = (uint32_t)hash & table->hash_mask; (entry = table->hash[i]);
	     i = (i + 1) & table->hash_mask) {
		if (entry >> 32 == hash >> 32 && key_equal(&table->hot[(uint32_t)entry].key, key))
			return (uint32_t)entry;
	}
	return 0;
}

static void hash_put(uint64_t *entries, uint32_t mask, uint64_t hash, uint32_t index)
{
	uint32_t i = (uint32_t)hash & mask;

	while (entries[i])
		i = (i + 1) & mask;
	entries[i] = (hash & ~0xffffffffULL) | index;
}

/* Keep the load at a quarter: most scalars-ups then touch one line. */
static int hash_grow(struct lbl_table *table)
{
	uint32_t mask = (table->hash_mask << 2) | 3, i;
	size_t bytes = ((size_t)mask + 1) * sizeof(uint64_t);
	uint64_t *entries = reserve(bytes);

	if (!entries)
		return -ENOMEM;
	if (bytes >= MANY_BYTES)
		madvise(entries, bytes, MADV_HUGEPAGE);
	for (i = 1; i < table->n; i++)
		hash_put(entries, mask, lbl_table_hash(table, &table->hot[i].key), i);
	release(table->hash, hash_bytes(table));
	table->hash = entries;
	table->hash_mask = mask;
	return 0;
}

uint32_t lbl_table_insert(struct lbl_table *table, const struct lbl_key *key, uint16_t name)
{
	uint32_t index = table->n;

	if (index > table->max || key_equal(key, &table->hot[0].key) ||
	    grow(table, (size_t)index + 1))
		return 0;
	if (index > table->hash_mask / 4 && hash_grow(table))
		return 0;
	table->hot[index].key = *key;
	table->cold[index].name = name;
	hash_put(table->hash, table->hash_mask, lbl_table_hash(table, key), index);
	__atomic_store_n(&table->n, index + 1, __ATOMIC_RELEASE);
	return index;
}

/* ---- counters ---- */

static void seq_write_begin(struct lbl_cold *cold)
{
	lbl_owner_add(&cold->seq, 1);
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

static void seq_write_end(struct lbl_cold *cold)
{
	__atomic_store_n(&cold->seq, cold->seq + 1, __ATOMIC_RELEASE);
}

void lbl_table_add_sum(struct lbl_table *table, uint32_t index, lbl_u128 ns)
{
	struct lbl_cold *cold = &table->cold[index];
	struct lbl_hot *hot = &table->hot[index];
	lbl_u128 sum = hot->sum + ns;

	if (likely(!(sum >> 63))) {
		WRITE_ONCE(&hot->sum, (uint64_t)sum);
		return;
	}
	seq_write_begin(cold);
	WRITE_ONCE(&hot->sum, (uint64_t)sum & (UINT64_MAX >> 1));
	lbl_owner_add(&cold->sum_carry, (uint64_t)(sum >> 63));
	seq_write_end(cold);
}

void lbl_table_add_count(struct lbl_table *table, uint32_t index, uint32_t which, uint64_t n)
{
	struct lbl_cold *cold = &table->cold[index];
	uint32_t *low = &table->hot[index].counts[which];
	uint64_t sum = *low + n;

	if (likely(!(sum >> 31))) {
		WRITE_ONCE(low, (uint32_t)sum);
		return;
	}
	seq_write_begin(cold);
	WRITE_ONCE(low, (uint32_t)sum & (UINT32_MAX >> 1));
	lbl_owner_add(&cold->count_carry[which], (uint32_t)(sum >> 31));
	seq_write_end(cold);
}

void lbl_table_add_closed(struct lbl_table *table, uint32_t index, uint32_t reason, uint64_t n)
{
	if (reason < LBL_HOT_REASONS)
		lbl_table_add_count(table, index, reason, n);
	else
		lbl_owner_add(&table->cold[index].connect_failed, n);
}

/* What a slot's counter is carried into, made if need be. Readers may look at it meanwhile. */
static uint32_t *carried(const struct lbl_table *table, struct lbl_cold *cold, enum lbl_level level,
			 uint32_t slot)
{
	struct lbl_block **pages = cold->pages[level], *page;

	if (!pages) {
		pages = calloc(n_pages(table), sizeof(*pages));
		if (!pages)
			return NULL;
		__atomic_store_n(&cold->pages[level], pages, __ATOMIC_RELEASE);
	}
	page = pages[slot / LBL_BLOCK_SLOTS];
	if (!page) {
		page = calloc(1, sizeof(*page));
		if (!page)
			return NULL;
		__atomic_store_n(&pages[slot / LBL_BLOCK_SLOTS], page, __ATOMIC_RELEASE);
	}
	return &page->count[slot % LBL_BLOCK_SLOTS];
}

static int carry(const struct lbl_table *table, struct lbl_cold *cold, uint8_t *recent,
		 uint32_t slot, uint64_t sum)
{
	uint32_t *low = carried(table, cold, LBL_LOW, slot), *high = NULL;
	uint64_t total;

	if (!low)
		return -ENOMEM;
	total = *low + (sum >> 7);
	if (total >> 32) {
		high = carried(table, cold, LBL_HIGH, slot);
		if (!high)
			return -ENOMEM;
	}
	seq_write_begin(cold);
	WRITE_ONCE(recent, (uint8_t)(sum & 127));
	WRITE_ONCE(low, (uint32_t)total);
	if (high)
		lbl_owner_add(high, (uint32_t)(total >> 32));
	seq_write_end(cold);
	return 0;
}

int lbl_table_count(struct lbl_table *table, uint32_t index, uint32_t slot, uint64_t n)
{
	uint8_t *recent = lbl_table_counter(table, index, slot);
	uint64_t sum = *recent + n;

	if (sum >> 7)
		return carry(table, &table->cold[index], recent, slot, sum);
	WRITE_ONCE(recent, (uint8_t)sum);
	return 0;
}

/* ---- reading ---- */

/* What a backend has counted beside its slots. */
struct scalars {
	lbl_u128 sum;
	uint64_t counts[LBL_HOT_COUNTS];
};

/*
 * Around what must not be read while a counter in it carries. That is little at a time: a backend
 * that is busy carries more often than all of it could be read. Pairs with seq_write_begin().
 */
static uint32_t seq_read_begin(const struct lbl_cold *cold)
{
	return __atomic_load_n(&cold->seq, __ATOMIC_ACQUIRE);
}

static bool seq_read_retry(const struct lbl_cold *cold, uint32_t seq)
{
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return seq & 1 || seq != READ_ONCE(&cold->seq);
}

static const uint32_t *page_at(const struct lbl_cold *cold, enum lbl_level level, uint32_t i)
{
	struct lbl_block **pages = __atomic_load_n(&cold->pages[level], __ATOMIC_ACQUIRE);
	const struct lbl_block *page = pages ? __atomic_load_n(&pages[i], __ATOMIC_ACQUIRE) : NULL;

	return page ? page->count : NULL;
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

static void add_page(uint64_t *slots, const uint32_t *page, int shift)
{
	uint32_t i;

	for (i = 0; page && i < LBL_BLOCK_SLOTS; i++)
		slots[i] += (uint64_t)READ_ONCE(&page[i]) << shift;
}

/* A cache line of counters, and what they were carried into. False if all is 0. */
static bool read_line(const uint8_t *line, const struct lbl_cold *cold, uint32_t number,
		      uint64_t *slots)
{
	const uint32_t *low, *high;
	uint32_t seq, i;
	bool any;

	do {
		seq = seq_read_begin(cold);
		low = page_at(cold, LBL_LOW, number);
		high = page_at(cold, LBL_HIGH, number);
		any = low || !is_zero(line);
		for (i = 0; any && i < LBL_BLOCK_SLOTS; i++)
			slots[i] = READ_ONCE(&line[i]);
		add_page(slots, low, 7);
		add_page(slots, high, 39);
	} while (seq_read_retry(cold, seq));
	return any;
}

static void read_scalars(const struct lbl_table *table, uint32_t index, struct scalars *scalars)
{
	const struct lbl_cold *cold = &table->cold[index];
	const struct lbl_hot *hot = &table->hot[index];
	uint32_t seq, i;

	do {
		seq = seq_read_begin(cold);
		scalars->sum = READ_ONCE(&hot->sum) + ((lbl_u128)READ_ONCE(&cold->sum_carry) << 63);
		for (i = 0; i < LBL_HOT_COUNTS; i++)
			scalars->counts[i] = READ_ONCE(&hot->counts[i]) +
					     ((uint64_t)READ_ONCE(&cold->count_carry[i]) << 31);
	} while (seq_read_retry(cold, seq));
}

void lbl_totals_clear(struct lbl_totals *totals)
{
	if (totals->end > totals->first)
		memset(totals->slots + totals->first, 0,
		       (totals->end - totals->first) * sizeof(*totals->slots));
	memset(totals, 0, offsetof(struct lbl_totals, slots));
	totals->first = LBL_SLOTS_MAX;
}

/* Connections that have ended, however. */
static int64_t count_ended(const struct lbl_cold *cold, const struct scalars *scalars)
{
	uint64_t n = READ_ONCE(&cold->connect_failed) + READ_ONCE(&cold->probes);
	uint32_t i;

	for (i = 0; i < LBL_HOT_REASONS; i++)
		n += scalars->counts[i];
	return (int64_t)n;
}

static void add_line(const struct lbl_table *table, uint32_t index, uint32_t number,
		     struct lbl_totals *totals)
{
	uint32_t first = number * LBL_BLOCK_SLOTS, i;
	uint64_t slots[LBL_BLOCK_SLOTS];

	if (!read_line(lbl_table_counter(table, index, first), &table->cold[index], number, slots))
		return;
	for (i = 0; i < LBL_BLOCK_SLOTS; i++)
		totals->slots[first + i] += slots[i];
	if (first < totals->first)
		totals->first = first;
	if (first + LBL_BLOCK_SLOTS > totals->end)
		totals->end = first + LBL_BLOCK_SLOTS;
}

/* Each count is true of some time during the read. */
void lbl_table_read(const struct lbl_table *table, uint32_t index, struct lbl_totals *totals)
{
	const struct lbl_cold *cold = &table->cold[index];
	struct scalars scalars;
	uint32_t i;

	read_scalars(table, index, &scalars);
	totals->sum += scalars.sum;
	totals->opened += scalars.counts[LBL_HOT_OPENED];
	totals->probes += READ_ONCE(&cold->probes);
	totals->closed[LBL_REASON_CONNECT_FAILED] += READ_ONCE(&cold->connect_failed);
	for (i = 0; i < LBL_HOT_REASONS; i++)
		totals->closed[i] += scalars.counts[i];
	if (table->sees_opens)
		totals->open +=
			(int64_t)scalars.counts[LBL_HOT_OPENED] - count_ended(cold, &scalars);
	for (i = 0; i < n_pages(table); i++)
		add_line(table, index, i, totals);
}

/* What is open stays open, where the closing will be seen. */
void lbl_table_clear(struct lbl_table *table, uint32_t index)
{
	struct lbl_cold *cold = &table->cold[index];
	struct lbl_hot *hot = &table->hot[index];
	struct lbl_key key = hot->key;
	uint16_t name = cold->name;
	struct scalars scalars;
	int64_t open;

	read_scalars(table, index, &scalars);
	open = (int64_t)scalars.counts[LBL_HOT_OPENED] - count_ended(cold, &scalars);
	free_pages(table, cold);
	memset(lbl_table_counter(table, index, 0), 0, table->row_bytes);
	memset(hot, 0, sizeof(*hot));
	memset(cold, 0, sizeof(*cold));
	hot->key = key;
	cold->name = name;
	if (table->sees_opens && open > 0)
		lbl_table_add_count(table, index, LBL_HOT_OPENED, (uint64_t)open);
}
