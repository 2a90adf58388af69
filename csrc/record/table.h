/* SPDX-License-Identifier: MIT */
/* A shard's table: the index of each backend, and counts of its connections. */
#ifndef LBL_RECORD_TABLE_H
#define LBL_RECORD_TABLE_H

#include "lbl_abi.h"
#include "base/array.h"
#include "base/bump.h"

/* Identical to the last 20 bytes of struct lbl_event, so that one compare checks an event's id. */
struct lbl_key {
	uint16_t port;
	uint16_t proxy_ref; /* the event's proxy id; if the shard is `by_name`, a name's number */
	uint8_t addr[16];
};

/* The key of index 0, reserved: 255.255.255.255:65535. */
extern const struct lbl_key lbl_overflow_key;

static inline const struct lbl_key *lbl_key_of(const struct lbl_event *event)
{
	return (const struct lbl_key *)&event->port;
}

_Static_assert(sizeof(struct lbl_key) ==
		       sizeof(struct lbl_event) - offsetof(struct lbl_event, port),
	       "lbl_key is the tail of lbl_event");

/* The frequent connection counts: closed by the first reasons, and opened. */
enum { LBL_HOT_REASONS = 6, LBL_HOT_OPENED = LBL_HOT_REASONS, LBL_HOT_COUNTS };

/*
 * All that an event needs besides its slot's counter, in one cache line, which only the shard's
 * owner writes. The key has the same position as in an event in a ring, so both compare as vectors.
 */
struct lbl_hot {
	uint64_t sum; /* sum of lifetimes, used by their bank */
	uint32_t counts[LBL_HOT_COUNTS]; /* low 31 bits */
	uint32_t unused[2];
	struct lbl_key key;
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct lbl_hot) == 64, "lbl_hot is one cache line");
_Static_assert(offsetof(struct lbl_hot, key) + sizeof(struct lbl_key) == sizeof(struct lbl_hot),
	       "lbl_hot ends as lbl_event does");

/* The rest of a backend. */
struct lbl_cold {
	uint32_t seq; /* seqcount around each carry of a count */
	uint32_t count_carry[LBL_HOT_COUNTS]; /* in units of 2^31 */
	uint64_t connect_failed;
	uint64_t probes;
	int64_t open_before; /* opened minus closed before the last reset: below 0 if other shards saw
				the openings */
	int64_t not_open; /* opened minus closed of connections that do not count as open */
	uint64_t activity; /* lbl_shard_activity() when it was last looked at */
	uint64_t changed_ns; /* when it was first found to be that, by the monotonic clock */
	uint32_t next; /* after it in a list of rows, if it has no name */
	uint16_t name; /* 0 = no backend: index 0, or a row that was removed */
	bool by_hand; /* the program added it, no stream */
};

/*
 * Readers without the writer's lock read rows below `n` that have a name. Only an insertion gives a
 * row its name, last of all; only a removal takes it, and excludes them.
 */
struct lbl_table {
	uint32_t max; /* limit of backends, without the overflow backend */
	uint32_t n; /* indexes used so far, 0 included */
	uint32_t free,
		unlinked; /* first row to use again, first that ids may still lead to; 0 = none */
	struct lbl_hot *hot;
	struct lbl_cold *cold;
	struct lbl_array hot_memory, cold_memory;
	uint32_t *by_id; /* event's backend_id to index; NULL if no event comes here */
	uint32_t ids_end; /* entries used of it */
	uint64_t seed; /* secret: clients choose addresses, and must not choose collisions */
	uint64_t *hash; /* high half: of the key's hash; low half: index; 0 = empty */
	uint32_t hash_mask;
	bool has_ipv6; /* a backend has an IPv6 address */
};

enum { LBL_IDS_MAX = 1 << 20 };

/* Create a table for the overflow backend, with or without ids of events. Returns 0 or -ENOMEM. */
int lbl_table_init(struct lbl_table *table, bool with_ids);
void lbl_table_destroy(struct lbl_table *table);

/*
 * Reserve address space for `max` backends. The arrays may move: the caller excludes readers, and
 * on failure too, their addresses may have changed. Returns 0 or -ENOMEM.
 */
int lbl_table_reserve(struct lbl_table *table, uint32_t max);

/* Return the index of the next backend to add. */
static inline uint32_t lbl_table_next(const struct lbl_table *table)
{
	return table->free ? table->free : table->n;
}

static inline bool lbl_table_is_full(const struct lbl_table *table)
{
	return lbl_table_next(table) > table->max;
}

/* Return the number of a backend's name, or 0 for index 0 and for rows without a backend. */
static inline uint16_t lbl_table_name(const struct lbl_table *table, uint32_t index)
{
	return __atomic_load_n(&table->cold[index].name, __ATOMIC_ACQUIRE);
}

/*
 * Return the entry with the last index of an event's id. Large ids share entries, so the caller
 * verifies the backend's key.
 */
static inline uint32_t *lbl_table_by_id(const struct lbl_table *table, uint32_t id)
{
	return &table->by_id[id & (LBL_IDS_MAX - 1)];
}

/* Remember the last index of an event's id. */
static inline void lbl_table_remember(struct lbl_table *table, uint32_t id, uint32_t index)
{
	uint32_t *entry = lbl_table_by_id(table, id);

	*entry = index;
	if (entry >= table->by_id + table->ids_end)
		table->ids_end = (uint32_t)(entry - table->by_id) + 1;
}

/*
 * The steps of lbl_table_find(), between which the caller prefetches: the key's hash, its first
 * entry, and the index of the first entry that may match, or 0.
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

	for (i = hash;; i++) {
		entry = table->hash[i & table->hash_mask];
		if (likely(!((entry ^ hash) >> 32)) || !entry)
			return (uint32_t)entry;
	}
}

/* Return the backend's index, or 0 if unknown. */
uint32_t lbl_table_find(const struct lbl_table *table, const struct lbl_key *key);

/*
 * Add an unknown backend and return its index. Returns 0, the overflow backend, if the table is
 * full, memory is exhausted or the key is lbl_overflow_key.
 */
uint32_t lbl_table_insert(struct lbl_table *table, const struct lbl_key *key, uint16_t name);

static inline uint32_t lbl_index_of(const struct lbl_table *table, const struct lbl_hot *hot)
{
	return (uint32_t)(hot - table->hot);
}

/* ---- removing backends: the caller excludes readers ---- */

/*
 * Take a backend away. Its row keeps its counts, and is not used again before lbl_table_free():
 * guesses by id may still lead there, though their verification then fails.
 */
void lbl_table_unlink(struct lbl_table *table, uint32_t index);

/*
 * Make ids forget rows without a backend, from entry `at` on. Returns where to continue, so that
 * the writer can go on in between, or 0 at the end.
 */
uint32_t lbl_table_forget_ids(struct lbl_table *table, uint32_t at);

/* Let the first of the unlinked rows be used again, to which no id leads. Its counts become 0. */
void lbl_table_free(struct lbl_table *table);

/* ---- connection counts ---- */

/* Add `n` to a frequent count, and carry its overflow; n = 0 only carries. */
void lbl_tally_add(struct lbl_table *table, uint32_t index, uint32_t which, uint64_t n);
/* Add `n` closed connections of any reason. */
void lbl_tally_add_closed(struct lbl_table *table, uint32_t index, uint32_t reason, uint64_t n);

/* Add 1 to a frequent count: a reason below LBL_HOT_REASONS, or LBL_HOT_OPENED. */
static inline void lbl_tally_inc(struct lbl_table *table, struct lbl_hot *hot, uint32_t which)
{
	if (unlikely(lbl_bump32(&hot->counts[which], 1)))
		lbl_tally_add(table, lbl_index_of(table, hot), which, 0);
}

/* All connection counts of a backend. */
struct lbl_tallies {
	uint64_t opened;
	int64_t open; /* opened minus closed, of connections that count as open; below 0 if others saw
			more open */
	int64_t open_before; /* the part of `open` that is from before the last reset */
	uint64_t closed[LBL_REASONS];
	uint64_t probes;
};

/*
 * Add one backend's counts to `tallies`. Takes no lock. Each count is consistent; the set is not a
 * point in time.
 */
void lbl_tallies_read(const struct lbl_table *table, uint32_t index, struct lbl_tallies *tallies);

/* Add `tallies` to a backend, besides what is open. */
void lbl_tallies_merge(struct lbl_table *table, uint32_t index, const struct lbl_tallies *tallies);

/* From now on, nothing that was counted for a backend is open. */
void lbl_tally_none_open(struct lbl_table *table, uint32_t index);

/*
 * Set a backend's counts to zero, but with `keep_open`, go on with what is open. The caller excludes
 * readers.
 */
void lbl_table_clear(struct lbl_table *table, uint32_t index, bool keep_open);

#endif
