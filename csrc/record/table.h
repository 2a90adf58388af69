/* SPDX-License-Identifier: MIT */
/*
 * Which backend an event belongs to, as an index, and how many of a backend's connections have
 * opened and closed. One table per shard.
 */
#ifndef LBL_RECORD_TABLE_H
#define LBL_RECORD_TABLE_H

#include "lbl_abi.h"
#include "base/array.h"
#include "base/bump.h"

/*
 * The last 20 bytes of struct lbl_event as they stand, so that the check of an event's id is one
 * compare.
 */
struct lbl_key {
	uint16_t port;
	uint16_t proxy_ref; /* the event's proxy id; where a shard is by name, a name's number */
	uint8_t addr[16];
};

/* The key of index 0, which no backend has: 255.255.255.255:65535. */
extern const struct lbl_key lbl_overflow_key;

static inline const struct lbl_key *lbl_key_of(const struct lbl_event *event)
{
	return (const struct lbl_key *)&event->port;
}

_Static_assert(sizeof(struct lbl_key) ==
		       sizeof(struct lbl_event) - offsetof(struct lbl_event, port),
	       "lbl_key is the tail of lbl_event");

/* Connections that are often counted: those closed for the first reasons, and opened ones. */
enum { LBL_HOT_REASONS = 6, LBL_HOT_OPENED = LBL_HOT_REASONS, LBL_HOT_COUNTS };

/*
 * What an event touches besides its slot's counter: one cache line, written by the shard's owner
 * only. The key is where an event in a ring has its own, so that both can be compared as vectors.
 */
struct lbl_hot {
	uint64_t sum; /* of lifetimes, for their bank */
	uint32_t counts[LBL_HOT_COUNTS]; /* low 31 bits */
	uint32_t unused[2];
	struct lbl_key key;
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct lbl_hot) == 64, "lbl_hot is one cache line");
_Static_assert(offsetof(struct lbl_hot, key) + sizeof(struct lbl_key) == sizeof(struct lbl_hot),
	       "lbl_hot ends as lbl_event does");

/* The rest of a backend. */
struct lbl_cold {
	uint32_t seq; /* a seqcount around every carry of a count */
	uint32_t count_carry[LBL_HOT_COUNTS]; /* in units of 2^31 */
	uint64_t connect_failed;
	uint64_t probes;
	uint16_t name;
};

struct lbl_table {
	uint32_t max; /* backends, the overflow one at index 0 not counted */
	uint32_t n; /* indexes in use, 0 included */
	struct lbl_hot *hot;
	struct lbl_cold *cold;
	struct lbl_array hot_memory, cold_memory;
	uint32_t *by_id; /* event's backend_id to index */
	uint64_t seed; /* a secret: addresses come from outside and must not be chosen to collide */
	uint64_t *hash; /* high half of the key's hash, index; 0 = empty */
	uint32_t hash_mask;
	bool has_ipv6; /* some backend's address is not IPv4 */
	bool sees_opens; /* of the connections that it sees close, which others do not */
};

enum { LBL_IDS_MAX = 1 << 20 };

/* Room for `max` backends and the overflow one. -ENOMEM. */
int lbl_table_init(struct lbl_table *table, uint32_t max);
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
 * Add a backend that is not there; 0, the overflow backend, if there is no room or the key is the
 * overflow backend's.
 */
uint32_t lbl_table_insert(struct lbl_table *table, const struct lbl_key *key, uint16_t name);

static inline uint32_t lbl_index_of(const struct lbl_table *table, const struct lbl_hot *hot)
{
	return (uint32_t)(hot - table->hot);
}

/* ---- connections by what became of them ---- */

/* Add to a count, and carry what it exceeds its low bits by: with n = 0, no more than that. */
void lbl_tally_add(struct lbl_table *table, uint32_t index, uint32_t which, uint64_t n);
/* For any reason, the seldom ones included. */
void lbl_tally_add_closed(struct lbl_table *table, uint32_t index, uint32_t reason, uint64_t n);

/* A reason below LBL_HOT_REASONS or LBL_HOT_OPENED. */
static inline void lbl_tally_inc(struct lbl_table *table, struct lbl_hot *hot, uint32_t which)
{
	if (unlikely(lbl_bump32(&hot->counts[which], 1)))
		lbl_tally_add(table, lbl_index_of(table, hot), which, 0);
}

/* A backend's connections, read out whole. */
struct lbl_tallies {
	uint64_t opened;
	int64_t open; /* opened less closed, where both are seen */
	uint64_t closed[LBL_REASONS];
	uint64_t probes;
};

/* Add what one backend has counted. Each count is consistent; the set is not a point in time. */
void lbl_tallies_read(const struct lbl_table *table, uint32_t index, struct lbl_tallies *tallies);

/* Add tallies to a backend, but for those that are open. */
void lbl_tallies_merge(struct lbl_table *table, uint32_t index, const struct lbl_tallies *tallies);

/*
 * Make a backend as new, but keep the number of open connections if this table will see them
 * close. No reader may be at work.
 */
void lbl_table_clear(struct lbl_table *table, uint32_t index);

#endif
