/* SPDX-License-Identifier: MIT */
/* What the C files share among themselves and with the C tests. */
#ifndef LBL_INTERNAL_H
#define LBL_INTERNAL_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "lbl_native.h"

__extension__ typedef unsigned __int128 lbl_u128;

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* Owner threads write and readers read these without a lock: plain moves, but never torn. */
#define lbl_load(p) __atomic_load_n(p, __ATOMIC_RELAXED)
#define lbl_store(p, v) __atomic_store_n(p, v, __ATOMIC_RELAXED)
#define lbl_add(p, v) lbl_store(p, *(p) + (v))

/* Objects that others need are freed with the last of them. */
static inline void lbl_get(int *refs)
{
	__atomic_add_fetch(refs, 1, __ATOMIC_RELAXED);
}

static inline bool lbl_put(int *refs)
{
	return !__atomic_sub_fetch(refs, 1, __ATOMIC_ACQ_REL);
}

/* ---- lbl_hist.c: buckets ---- */

enum {
	LBL_NATIVE_SCHEMA = 6,
	LBL_NATIVE_PER_OCTAVE = 1 << LBL_NATIVE_SCHEMA,
	LBL_NATIVE_FIRST = -20 * LBL_NATIVE_PER_OCTAVE, /* 2^-20 s: the zero bucket's bound */
	LBL_NATIVE_LAST = 24 * LBL_NATIVE_PER_OCTAVE, /* 2^24 s, 194 days */
	LBL_NATIVE_BOUNDS = LBL_NATIVE_LAST - LBL_NATIVE_FIRST + 1,
	LBL_CLASSIC_MAX = 512,
	LBL_SLOTS_MAX = LBL_NATIVE_BOUNDS + LBL_CLASSIC_MAX + 1,
	LBL_CELL_BITS = 7,
	LBL_CELLS = 54 << LBL_CELL_BITS,
};

#define LBL_TOP_NS (1000000000ULL << 24)
#define LBL_LIFETIME_MAX (1ULL << 58) /* nine years: no kernel has been up that long */
#define LBL_OBSERVE_MAX (1ULL << 62)

struct lbl_layout {
	int refs;
	uint32_t n_slots;
	uint32_t n_classic;
	uint64_t upper[LBL_SLOTS_MAX + 2]; /* inclusive, ns; UINT64_MAX behind the last bound */
	uint16_t cell[LBL_CELLS]; /* how many bounds lie below the cell */
	int32_t native[LBL_SLOTS_MAX]; /* schema-6 index of the slot */
	uint16_t classic[LBL_CLASSIC_MAX]; /* the slot that ends at the classic bound */
};

/*
 * A cell is 1/128 of an octave, found from the exponent and top mantissa bits of the duration as a
 * double (clz would need lzcnt to be as quick). The 1 keeps 0 out of the exponents; cells are wider
 * where it counts. For durations of at most LBL_TOP_NS.
 */
static inline uint32_t lbl_cell(uint64_t ns)
{
	union {
		double d;
		uint64_t u;
	} x = { .d = (double)(int64_t)(ns | 1) };

	return (uint32_t)(x.u >> (52 - LBL_CELL_BITS)) - (1023U << LBL_CELL_BITS);
}

/* A cell holds two bounds at the most, so two branchless compares finish the search. */
static inline uint32_t lbl_slot_in_cell(const struct lbl_layout *layout, uint32_t cell, uint64_t ns)
{
	uint32_t first = layout->cell[cell];

	return first + (layout->upper[first] < ns) + (layout->upper[first + 1] < ns);
}

static inline uint32_t lbl_slot(const struct lbl_layout *layout, uint64_t ns)
{
	return ns > LBL_TOP_NS ? layout->n_slots - 1 : lbl_slot_in_cell(layout, lbl_cell(ns), ns);
}

/* ---- lbl_array.c: memory that grows in place ---- */

struct lbl_array {
	uint8_t *at;
	size_t reserved, usable; /* bytes */
};

/* Address space for `bytes`, none of it usable yet. -ENOMEM if there is not that much. */
int lbl_array_reserve(struct lbl_array *array, size_t bytes);
/* Have the first `bytes` usable, zeroed if they were not before. -ENOMEM if there are none. */
int lbl_array_grow(struct lbl_array *array, size_t bytes);
void lbl_array_release(struct lbl_array *array);

/* ---- lbl_table.c: backends and their counters, one table a shard ---- */

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
enum { LBL_PAGE_SLOTS = 64, LBL_ROW_MAX = LBL_SLOTS_MAX + LBL_PAGE_SLOTS - 1 };
enum lbl_level { LBL_LOW, LBL_HIGH, LBL_LEVELS };

struct lbl_page {
	uint32_t count[LBL_PAGE_SLOTS];
};

/* The rest of a backend. `carries` is odd while a counter carries into the next. */
struct lbl_cold {
	struct lbl_page **pages[LBL_LEVELS];
	uint64_t sum_carry; /* in units of 2^63 ns */
	uint32_t carries;
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
static inline uint64_t lbl_mix(uint64_t a, uint64_t b)
{
	lbl_u128 product = (lbl_u128)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

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

/* ---- lbl_maps.c: BPF maps ---- */

struct bpf_map_info;

int lbl_map_info(int fd, struct bpf_map_info *ret);

/* ---- lbl_flows.c: when connections began whose events do not say it ---- */

struct lbl_flow_key {
	uint32_t client, target; /* network order */
	uint16_t client_port, target_port;
};

struct lbl_flow {
	struct lbl_flow_key key;
	uint32_t used;
	uint64_t created_ns;
};

struct lbl_flows {
	uint64_t seed; /* as of struct lbl_table */
	struct lbl_flow *entries;
	uint32_t mask, n;
};

/* Remember or replace. 1 if another of a million had to be forgotten for it, -ENOMEM. */
int lbl_flows_put(struct lbl_flows *flows, const struct lbl_flow_key *key, uint64_t created_ns);
/* Forget, and tell when it was created; 0 if not known. */
uint64_t lbl_flows_take(struct lbl_flows *flows, const struct lbl_flow_key *key);
void lbl_flows_destroy(struct lbl_flows *flows);

/* ---- lbl_decode.c: the event layouts ---- */

/* 0, or -EINVAL for a record of no known length or type. */
int lbl_decode(const void *data, uint32_t len, struct lbl_seen *ret);

/* ---- lbl_engine.c: event to histogram ---- */

struct lbl_vip {
	uint8_t addr[16];
	uint16_t port;
	uint16_t proxy;
};

struct lbl_proxy_name {
	uint16_t proxy, name;
};

struct lbl_names;

/* lbl_conntrack.c */
struct lbl_conntrack *lbl_conntrack_get_ref(struct lbl_conntrack *conntrack);

/*
 * One writer's share of a tracker. `lock` is held by whoever writes, for a batch at a time; the
 * counters and the table's contents are read without it.
 */
struct lbl_shard {
	pthread_mutex_t lock;
	struct lbl_layout *layout;
	struct lbl_table table;
	struct lbl_tracker_stats stats;
	struct lbl_flows flows;
	struct lbl_conntrack *conntrack;
	struct lbl_names *names;
	bool by_name; /* its keys hold names for proxy ids */
	uint32_t limit; /* backends it may add; its table may have room for more */
	struct lbl_proxy_name *proxies;
	size_t n_proxies;
	struct lbl_vip *vips;
	size_t n_vips;
};

/* `room` for backends; may add as many, unless its limit is lowered. */
int lbl_shard_new(struct lbl_layout *layout, uint32_t room, struct lbl_names *names,
		  struct lbl_shard **ret);
void lbl_shard_free(struct lbl_shard *shard);

/* With the lock held: one record of any length. */
void lbl_shard_record(struct lbl_shard *shard, const void *data, uint32_t len);

/* lbl_run.c: the same for 1 to LBL_RUN_MAX 56-byte events 64 bytes apart, quicker. */
void lbl_shard_record_run(struct lbl_shard *shard, const void *first, uint32_t n);

enum { LBL_RUN_MAX = 64 };

/*
 * Whether seconds are a duration that can be recorded: not NaN, infinite, negative or more than
 * LBL_OBSERVE_MAX ns. Doubles that are not negative have the order of their bits.
 */
static inline bool lbl_is_duration(double seconds)
{
	const union {
		double d;
		uint64_t u;
	} x = { .d = seconds + 0.0 }, most = { .d = (double)LBL_OBSERVE_MAX / 1e9 };

	return x.u <= most.u;
}

/*
 * With the lock held: durations of a backend of this shard. Returns how many were recorded; fewer
 * only for lack of memory.
 */
size_t lbl_shard_observe(struct lbl_shard *shard, uint32_t index, const double *seconds, size_t n);

/* With the lock held: the backend's index, added if need be; 0 is the overflow. */
uint32_t lbl_shard_backend(struct lbl_shard *shard, const struct lbl_key *key);

/* ---- lbl_names.c: proxy names as small numbers ---- */

struct lbl_names *lbl_names_new(void);
void lbl_names_free(struct lbl_names *names);
int lbl_names_put(struct lbl_names *names, const char *text, size_t len);
int lbl_names_find(struct lbl_names *names, const char *text, size_t len);
const char *lbl_names_get(struct lbl_names *names, uint16_t name, size_t *len);

/* ---- lbl_fork.c: what fork() must not tear apart ---- */

/* Called for each registered object: before the fork, then after it in the parent or child. */
enum lbl_fork_phase { LBL_FORK_PREPARE, LBL_FORK_PARENT, LBL_FORK_CHILD };

struct lbl_fork_entry {
	struct lbl_fork_entry *next;
	int rank; /* objects of a lower rank are locked first */
	void (*handle)(struct lbl_fork_entry *entry, enum lbl_fork_phase phase);
};

void lbl_fork_register(struct lbl_fork_entry *entry);
void lbl_fork_unregister(struct lbl_fork_entry *entry);

#endif
