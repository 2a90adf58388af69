// SPDX-License-Identifier: MIT
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "base/seq.h"
#include "event/event.h"
#include "record/table.h"

enum { FIRST_HASH = 64 };

const struct lbl_key lbl_overflow_key = {
	.port = UINT16_MAX,
	.proxy_ref = UINT16_MAX,
	.addr = { [10] = 0xff, 0xff, 0xff, 0xff, 0xff, 0xff },
};

/* Map zeroed memory; the kernel backs only the touched pages. */
static void *reserve(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* From this size on, use huge pages: small ones would exceed the TLB. */
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

/* Make `n` backends usable. */
static int grow(struct lbl_table *table, size_t n)
{
	if (lbl_array_grow(&table->hot_memory, n * sizeof(*table->hot)) ||
	    lbl_array_grow(&table->cold_memory, n * sizeof(*table->cold)))
		return -ENOMEM;
	return 0;
}

int lbl_table_reserve(struct lbl_table *table, uint32_t max)
{
	size_t n = (size_t)max + 1;
	int err = lbl_array_reserve(&table->hot_memory, n * sizeof(*table->hot));

	if (!err)
		err = lbl_array_reserve(&table->cold_memory, n * sizeof(*table->cold));
	table->hot = (struct lbl_hot *)(void *)table->hot_memory.at;
	table->cold = (struct lbl_cold *)(void *)table->cold_memory.at;
	if (!err)
		table->max = max;
	return err;
}

static int init(struct lbl_table *table, bool with_ids)
{
	int err;

	if (with_ids)
		table->by_id = reserve(LBL_IDS_MAX * sizeof(*table->by_id));
	table->hash = reserve(FIRST_HASH * sizeof(*table->hash));
	if (!table->hash || (with_ids && !table->by_id))
		return -ENOMEM;
	err = lbl_table_reserve(table, 0);
	return err ? err : grow(table, 1);
}

int lbl_table_init(struct lbl_table *table, bool with_ids)
{
	memset(table, 0, sizeof(*table));
	table->n = 1;
	table->hash_mask = FIRST_HASH - 1;
	if (getrandom(&table->seed, sizeof(table->seed), GRND_NONBLOCK) != sizeof(table->seed))
		table->seed = (uintptr_t)table;
	if (init(table, with_ids)) {
		lbl_table_destroy(table);
		return -ENOMEM;
	}
	table->hot[0].key = lbl_overflow_key;
	return 0;
}

void lbl_table_destroy(struct lbl_table *table)
{
	lbl_array_release(&table->hot_memory);
	lbl_array_release(&table->cold_memory);
	release(table->by_id, LBL_IDS_MAX * sizeof(*table->by_id));
	release(table->hash, hash_bytes(table));
	memset(table, 0, sizeof(*table));
}

/* ---- finding backends ---- */

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

/* Keep the load at a quarter: most look-ups then touch one line. */
static int hash_grow(struct lbl_table *table)
{
	uint32_t mask = (table->hash_mask << 2) | 3, i;
	size_t bytes = ((size_t)mask + 1) * sizeof(uint64_t);
	uint64_t *entries = reserve(bytes);

	if (!entries)
		return -ENOMEM;
	if (bytes >= MANY_BYTES)
		madvise(entries, bytes, MADV_HUGEPAGE);
	for (i = 1; i < table->n; i++) {
		if (table->cold[i].name)
			hash_put(entries, mask, lbl_table_hash(table, &table->hot[i].key), i);
	}
	release(table->hash, hash_bytes(table));
	table->hash = entries;
	table->hash_mask = mask;
	return 0;
}

uint32_t lbl_table_insert(struct lbl_table *table, const struct lbl_key *key, uint16_t name)
{
	uint32_t index = lbl_table_next(table);

	if (lbl_table_is_full(table) || key_equal(key, &lbl_overflow_key) ||
	    grow(table, (size_t)index + 1))
		return 0;
	if (index > table->hash_mask / 4 && hash_grow(table))
		return 0;
	if (index == table->free)
		table->free = table->cold[index].next;
	table->hot[index].key = *key;
	table->has_ipv6 |= !lbl_is_ipv4(key->addr);
	hash_put(table->hash, table->hash_mask, lbl_table_hash(table, key), index);
	/* Pairs with lbl_table_name(): who sees the name sees the key. */
	__atomic_store_n(&table->cold[index].name, name, __ATOMIC_RELEASE);
	if (index == table->n)
		__atomic_store_n(&table->n, index + 1, __ATOMIC_RELEASE);
	return index;
}

/* ---- removing backends ---- */

/* Close the gap, so that no tombstones are needed and each guess stays right. */
static void hash_remove(struct lbl_table *table, uint32_t index)
{
	uint32_t mask = table->hash_mask, gap, i;
	uint64_t *entries = table->hash;

	i = (uint32_t)lbl_table_hash(table, &table->hot[index].key) & mask;
	while ((uint32_t)entries[i] != index)
		i = (i + 1) & mask;
	for (gap = i;; gap = i) {
		uint32_t home;

		entries[gap] = 0;
		do {
			const struct lbl_hot *hot;

			i = (i + 1) & mask;
			if (!entries[i])
				return;
			hot = &table->hot[(uint32_t)entries[i]];
			home = (uint32_t)lbl_table_hash(table, &hot->key) & mask;
		} while (((i - home) & mask) < ((i - gap) & mask));
		entries[gap] = entries[i];
	}
}

void lbl_table_unlink(struct lbl_table *table, uint32_t index)
{
	struct lbl_cold *cold = &table->cold[index];

	hash_remove(table, index);
	table->hot[index].key = lbl_overflow_key; /* no other backend's */
	cold->name = 0;
	cold->next = table->unlinked;
	table->unlinked = index;
}

enum { IDS_PER_LOCK = 1 << 14 };

uint32_t lbl_table_forget_ids(struct lbl_table *table, uint32_t at)
{
	uint32_t end = table->ids_end - at > IDS_PER_LOCK ? at + IDS_PER_LOCK : table->ids_end;

	for (; at < end; at++) {
		uint32_t index = table->by_id[at];

		if (index && !table->cold[index].name)
			table->by_id[at] = 0;
	}
	return end < table->ids_end ? end : 0;
}

void lbl_table_free(struct lbl_table *table)
{
	uint32_t index = table->unlinked;
	struct lbl_cold *cold = &table->cold[index];

	table->unlinked = cold->next;
	memset(table->hot[index].counts, 0, sizeof(table->hot[index].counts));
	*cold = (struct lbl_cold){ .next = table->free };
	table->free = index;
}

/* ---- connection counts ---- */

void lbl_tally_add(struct lbl_table *table, uint32_t index, uint32_t which, uint64_t n)
{
	struct lbl_cold *cold = &table->cold[index];
	uint32_t *low = &table->hot[index].counts[which];
	uint64_t sum = *low + n;

	if (likely(!(sum >> 31))) {
		WRITE_ONCE(low, (uint32_t)sum);
		return;
	}
	lbl_seq_write_begin(&cold->seq);
	WRITE_ONCE(low, (uint32_t)sum & (UINT32_MAX >> 1));
	lbl_owner_add(&cold->count_carry[which], (uint32_t)(sum >> 31));
	lbl_seq_write_end(&cold->seq);
}

void lbl_tally_add_closed(struct lbl_table *table, uint32_t index, uint32_t reason, uint64_t n)
{
	if (reason < LBL_HOT_REASONS)
		lbl_tally_add(table, index, reason, n);
	else
		lbl_owner_add(&table->cold[index].connect_failed, n);
}

static void read_counts(const struct lbl_table *table, uint32_t index, uint64_t ret[LBL_HOT_COUNTS])
{
	const struct lbl_cold *cold = &table->cold[index];
	const struct lbl_hot *hot = &table->hot[index];
	uint32_t seq, i;

	do {
		seq = lbl_seq_read_begin(&cold->seq);
		for (i = 0; i < LBL_HOT_COUNTS; i++)
			ret[i] = READ_ONCE(&hot->counts[i]) +
				 ((uint64_t)READ_ONCE(&cold->count_carry[i]) << 31);
	} while (lbl_seq_read_retry(&cold->seq, seq));
}

void lbl_tallies_read(const struct lbl_table *table, uint32_t index, struct lbl_tallies *tallies)
{
	const struct lbl_cold *cold = &table->cold[index];
	uint64_t counts[LBL_HOT_COUNTS], ended = 0;
	uint64_t connect_failed = READ_ONCE(&cold->connect_failed);
	uint64_t probes = READ_ONCE(&cold->probes);
	uint32_t i;

	read_counts(table, index, counts);
	for (i = 0; i < LBL_HOT_REASONS; i++) {
		tallies->closed[i] += counts[i];
		ended += counts[i];
	}
	tallies->closed[LBL_REASON_CONNECT_FAILED] += connect_failed;
	tallies->probes += probes;
	tallies->opened += counts[LBL_HOT_OPENED];
	tallies->open_before += cold->open_before;
	tallies->open += cold->open_before - READ_ONCE(&cold->not_open) +
			 (int64_t)(counts[LBL_HOT_OPENED] - ended - connect_failed - probes);
}

void lbl_tallies_merge(struct lbl_table *table, uint32_t index, const struct lbl_tallies *tallies)
{
	uint32_t i;

	for (i = 0; i < LBL_REASONS; i++)
		lbl_tally_add_closed(table, index, i, tallies->closed[i]);
	lbl_tally_add(table, index, LBL_HOT_OPENED, tallies->opened);
	lbl_owner_add(&table->cold[index].probes, tallies->probes);
	table->cold[index].open_before += tallies->open_before;
}

void lbl_tally_none_open(struct lbl_table *table, uint32_t index)
{
	struct lbl_tallies tallies = { 0 };

	lbl_tallies_read(table, index, &tallies);
	lbl_owner_add(&table->cold[index].not_open, tallies.open);
}

void lbl_table_clear(struct lbl_table *table, uint32_t index, bool keep_open)
{
	struct lbl_cold *cold = &table->cold[index];
	struct lbl_hot *hot = &table->hot[index];
	struct lbl_tallies tallies = { 0 };

	lbl_tallies_read(table, index, &tallies);
	memset(hot->counts, 0, sizeof(hot->counts));
	*cold = (struct lbl_cold){ .next = cold->next,
				   .name = cold->name,
				   .by_hand = cold->by_hand,
				   .open_before = keep_open ? tallies.open : 0 };
}
