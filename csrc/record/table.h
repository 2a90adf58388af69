/* SPDX-License-Identifier: MIT */
/* Backends and their counters, one table per shard. */
#ifndef LBL_RECORD_TABLE_H
#define LBL_RECORD_TABLE_H

#include "lbl_abi.h"
#include "base/array.h"
#include "base/util.h"
#include "hist/buckets.h"

/*
 * Which backend: the last 20 bytes of struct lbl_event as they stand, so that the check of an
 * event's id is one compare.
 */
struct lbl_key {
	uint16_t port;
	uint16_t proxy;
	uint8_t addr[16];
};

_Static_assert(sizeof(struct lbl_key) ==
		       sizeof(struct lbl_event) - offsetof(struct lbl_event, port),
	       "lbl_key is the tail of lbl_event");

/* Counts that are often needed: connections closed for the first reasons, and opened ones. */
enum { LBL_HOT_REASONS = 6, LBL_HOT_OPENED = LBL_HOT_REASONS, LBL_HOT_COUNTS };

/*
 * What an event touches beside its slot's counter: one cache line, written by the shard's owner
 * only. The key is where an event in a ring has its own, so that both can be compared as vectors.
 */
struct lbl_hot {
	uint64_t sum; /* ns, low 63 bits */
	uint32_t counts[LBL_HOT_COUNTS]; /* low 31 bits */
	uint32_t unused[2];
	struct lbl_key key;
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct lbl_hot) == 64, "lbl_hot is one cache line");
_Static_assert(offsetof(struct lbl_hot, key) + sizeof(struct lbl_key) == sizeof(struct lbl_hot),
	       "lbl_hot ends as lbl_event does");

/*
 * A slot's counter is a byte, of which its owner lets 7 bits stand, so that an octave's counters
 * are one cache line. What they exceed that by is carried into pages of an octave each, and what
 * those exceed into others: count = recent + (low << 7) + (high << 39). Pages come when needed.
 */
enum { LBL_BLOCK_SLOTS = 64, LBL_ROW_MAX = LBL_SLOTS_MAX + LBL_BLOCK_SLOTS - 1 };
enum lbl_level { LBL_LOW, LBL_HIGH, LBL_LEVELS };

struct lbl_block {
	uint32_t count[LBL_BLOCK_SLOTS];
};

/* The rest of a backend. `seq` is odd while a counter carries into the next. */
struct lbl_cold {
	struct lbl_block **pages[LBL_LEVELS];
	uint64_t sum_carry; /* in units of 2^63 ns */
	uint32_t seq;
	uint32_t count_carry[LBL_HOT_COUNTS]; /* in units of 2^31 */
	uint16_t name;
	uint64_t connect_failed;
	uint64_t probes;
};

struct lbl_table {
	uint32_t max; /* backends, the overflow one at index 0 not counted */
	uint32_t n; /* indexes in use, 0 included */
	uint32_t row_bytes; /* counters of a backend: whole cache lines */
	uint8_t *recent; /* n rows */
	struct lbl_hot *hot;
	struct lbl_cold *cold;
	struct lbl_array recent_memory, hot_memory, cold_memory;
	uint32_t *by_id; /* event's backend_id to index */
	uint64_t seed; /* a secret: addresses come from outside and must not be chosen to collide */
	uint64_t *hash; /* high half of the key's hash, index; 0 = empty */
	uint32_t hash_mask;
	bool sees_opens; /* of the connections that it sees close, which others do not */
};

enum { LBL_IDS_MAX = 1 << 20 };

int lbl_table_init(struct lbl_table *table, uint32_t max, uint32_t n_slots);
void lbl_table_destroy(struct lbl_table *table);

/* The index that an id led to last. Large ids share entries: what they lead to is checked. */
static inline uint32_t *lbl_table_by_id(const struct lbl_table *table, uint32_t id)
{
	return &table->by_id[id & (LBL_IDS_MAX - 1)];
}

/*
 * lbl_table_find() in steps, between which memory has time to come: the key's hash, the entry to
 * look at first, and the index of the first entry that may be the key's, 0 if there is none.
 */
static inline uint64_t lbl_table_hash(const struct lbl_table *table, const struct lbl_key *key)
{
	uint64_t high, low;
	uint32_t front;

	memcpy(&front, key, sizeof(front));
	memcpy(&high, key->addr, sizeof(high));
	memcpy(&low, key->addr + 8, sizeof(low));
	return lbl_mix(lbl_mix(low ^ table->seed, 0xa0761d6478bd642f ^ front),
		       high ^ table->seed ^ 0xe7037ed1a0b428db);
}

static inline const uint64_t *lbl_table_entry(const struct lbl_table *table, uint64_t hash)
{
	return &table->hash[hash & table->hash_mask];
}

static inline uint32_t lbl_table_guess(const struct lbl_table *table, uint64_t hash)
{
	uint64_t i, entry;

	for (i = hash; (entry = table->hash[i & table->hash_mask]); i++) {
		if (likely(entry >> 32 == hash >> 32))
			return (uint32_t)entry;
	}
	return 0;
}

/* Index of the backend, or 0. */
uint32_t lbl_table_find(const struct lbl_table *table, const struct lbl_key *key);

/*
 * Add a backend that is not there; 0, the overflow backend, if there is no room or the key is all
 * ones, which index 0 has.
 */
uint32_t lbl_table_insert(struct lbl_table *table, const struct lbl_key *key, uint16_t name);

static inline uint8_t *lbl_table_counter(const struct lbl_table *table, uint32_t index,
					 uint32_t slot)
{
	return &table->recent[(size_t)index * table->row_bytes + slot];
}

/*
 * Add to a backend's counters, and carry what they exceed their low bits by: with 0, no more than
 * that. -ENOMEM if there was no page to carry into; then nothing has changed.
 */
int lbl_table_count(struct lbl_table *table, uint32_t index, uint32_t slot, uint64_t n);
void lbl_table_add_sum(struct lbl_table *table, uint32_t index, lbl_u128 ns);
void lbl_table_add_count(struct lbl_table *table, uint32_t index, uint32_t which, uint64_t n);
/* For any reason, the seldom ones included. */
void lbl_table_add_closed(struct lbl_table *table, uint32_t index, uint32_t reason, uint64_t n);

/* Make a backend as new. Only while no reader is at work. */
void lbl_table_clear(struct lbl_table *table, uint32_t index);

/* A backend read out whole, for readers and for folding one table into another. */
struct lbl_totals {
	lbl_u128 sum;
	uint64_t opened;
	int64_t open; /* opened less closed, where both are told of */
	uint64_t closed[LBL_REASONS];
	uint64_t probes;
	uint32_t first, end; /* slots outside are 0 */
	uint64_t slots[LBL_ROW_MAX];
};

void lbl_totals_clear(struct lbl_totals *totals);

/* Add what one backend has counted. The owner may write meanwhile. */
void lbl_table_read(const struct lbl_table *table, uint32_t index, struct lbl_totals *totals);

#endif
