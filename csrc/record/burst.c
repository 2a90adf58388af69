// SPDX-License-Identifier: MIT
/*
 * The fast path: runs of our own events, all together in stages. Each is short, so that the
 * processor has many events in hand at once, and asks for the memory that the next one needs, so
 * that the waits of a whole burst overlap instead of adding up. What is not plain goes the long way.
 */
#include <endian.h>

#include "record/burst.h"

bool lbl_use_avx512;

__attribute__((constructor)) static void choose(void)
{
	lbl_use_avx512 = lbl_has_avx512();
}

/* ---- decoding ---- */

/*
 * The event's reason if it is closed, no probe's and was a connection, else something larger. All
 * in one compare: type, reason and flags are the first word's bytes, and what is not the reason is
 * rotated to where only 0 is small.
 */
static inline uint32_t fast_reason(uint32_t word)
{
	const uint32_t mask = 0xffffU | (uint32_t)LBL_FLAG_PROBE << 24;

	word = (le32toh(word) ^ LBL_CLOSED) & mask;
	return word >> 8 | word << 24;
}

/* One compare tells that the creation is known, since 0 - 1 is the largest number, and not late. */
static inline bool is_lifetime(uint64_t created, uint64_t ended)
{
	return created - 1 < ended && ended - created <= LBL_TOP_NS;
}

/* Decode events from a number on. */
static void decode(struct lbl_burst *restrict burst, uint32_t from)
{
	uint64_t closed = lbl_burst_all(burst->n) & ~lbl_burst_all(from), opened = 0;
	const char *at = burst->first + from * 64UL;
	uint32_t n = burst->n, i;

	for (i = from; i < n; i++, at += 64) {
		const struct lbl_event *event = (const void *)at;
		uint32_t word = READ_ONCE((const uint32_t *)(const void *)event);
		uint64_t created = READ_ONCE(&event->created_ns);
		uint64_t ended = READ_ONCE(&event->timestamp_ns);
		uint64_t ns = ended - created;
		uint32_t reason = fast_reason(word);

		if (unlikely(reason >= LBL_HOT_REASONS || !is_lifetime(created, ended))) {
			closed &= ~(1ULL << i);
			opened |= (uint64_t)((le32toh(word) & 0xff) == LBL_OPENED) << i;
			ns = 0;
		}
		burst->ns[i] = ns;
		burst->decoded[i].cell = (uint16_t)lbl_cell(ns);
		burst->decoded[i].reason = (uint16_t)reason;
		burst->decoded[i].id = event->backend_id;
	}
	burst->closed |= closed;
	burst->opened |= opened;
}

/* ---- finding the counters ---- */

static inline void locate(const struct lbl_shard *shard, struct lbl_burst *restrict burst,
			  uint32_t i, uint32_t index)
{
	const struct lbl_buckets *buckets = shard->buckets;
	uint32_t slot = lbl_slot_in_cell(buckets, burst->decoded[i].cell, burst->ns[i]);

	burst->hot[i] = &shard->table.hot[index];
	burst->counter[i] = lbl_table_counter(&shard->table, index, slot);
	__builtin_prefetch(burst->hot[i], 1);
	__builtin_prefetch(burst->counter[i], 1);
}

/* A guess, to be checked: an id leads to the backend that it led to last. */
static void find_by_id(const struct lbl_shard *shard, struct lbl_burst *restrict burst)
{
	uint32_t i;

#pragma GCC unroll 4
	for (i = 0; i < burst->n; i++)
		locate(shard, burst, i, *lbl_table_by_id(&shard->table, burst->decoded[i].id));
}

/* Another guess: a hash leads to the first entry that may be the key's. */
static void find_by_hash(const struct lbl_shard *shard, struct lbl_burst *restrict burst)
{
	const struct lbl_table *table = &shard->table;
	uint64_t hash[LBL_BURST_MAX];
	uint32_t i;

	for (i = 0; i < burst->n; i++) {
		hash[i] = lbl_table_hash(table, lbl_key_of(lbl_burst_event(burst, i)));
		__builtin_prefetch(lbl_table_entry(table, hash[i]));
	}
	for (i = 0; i < burst->n; i++)
		locate(shard, burst, i, lbl_table_guess(table, hash[i]));
}

/*
 * 0 if they are the same. Two long words and a short one without a branch: what memcmp() would be
 * too careful for.
 */
static inline uint64_t difference(const struct lbl_key *a, const struct lbl_key *b)
{
	uint64_t a0, a1, b0, b1;
	uint32_t a2, b2;

	memcpy(&a0, a, 8);
	memcpy(&b0, b, 8);
	memcpy(&a1, (const char *)a + 8, 8);
	memcpy(&b1, (const char *)b + 8, 8);
	memcpy(&a2, (const char *)a + 16, 4);
	memcpy(&b2, (const char *)b + 16, 4);
	return (a0 ^ b0) | (a1 ^ b1) | (a2 ^ b2);
}

static inline uint64_t key_difference(const struct lbl_burst *burst, uint32_t i)
{
	return difference(&burst->hot[i]->key, lbl_key_of(lbl_burst_event(burst, i)));
}

static bool same_keys(const struct lbl_burst *burst)
{
	uint64_t wrong = 0;
	uint32_t i;

	for (i = 0; i < burst->n; i++)
		wrong |= key_difference(burst, i);
	return !wrong;
}

static uint64_t wrong_backends(const struct lbl_burst *burst)
{
	uint64_t wrong = 0;
	uint32_t i;

	for (i = 0; i < burst->n; i++)
		wrong |= (uint64_t)(key_difference(burst, i) != 0) << i;
	return wrong;
}

/* ---- counting ---- */

/* The number of the first in a set, which is taken out of it. */
static inline uint32_t pop_lowest(uint64_t *set)
{
	uint32_t i = (uint32_t)__builtin_ctzll(*set);

	*set &= *set - 1;
	return i;
}

static void count_opened(struct lbl_shard *shard, const struct lbl_burst *burst)
{
	uint64_t left = burst->opened;

	lbl_owner_add(&shard->stats.opened, (uint64_t)__builtin_popcountll(left));
	while (left)
		lbl_count_one(&shard->table, burst->hot[pop_lowest(&left)], LBL_HOT_OPENED);
}

/* False if there was no memory for it. */
static inline bool count_one_closed(struct lbl_table *table, const struct lbl_burst *burst,
				    uint32_t i)
{
	struct lbl_hot *hot = burst->hot[i];

	lbl_count_one(table, hot, burst->decoded[i].reason);
	if (unlikely(lbl_bump8(burst->counter[i], 1))) {
		uint32_t index = lbl_index_of(table, hot);
		const uint8_t *row = lbl_table_counter(table, index, 0);

		if (!lbl_carry(table, index, (uint32_t)(burst->counter[i] - row)))
			return false;
	}
	lbl_sum(table, hot, burst->ns[i]);
	return true;
}

static uint32_t count_closed(struct lbl_table *table, const struct lbl_burst *burst)
{
	uint64_t left = burst->closed;
	uint32_t failed = 0;

	while (left)
		failed += !count_one_closed(table, burst, pop_lowest(&left));
	return failed;
}

/* The same if that is all of them, which is quicker one after the other. */
static uint32_t count_all_closed(struct lbl_table *table, const struct lbl_burst *burst, uint32_t n)
{
	uint32_t failed = 0, i;

	for (i = 0; i < n; i++)
		failed += !count_one_closed(table, burst, i);
	return failed;
}

static void account(struct lbl_shard *shard, uint64_t closed, uint32_t failed)
{
	uint64_t n = (uint64_t)__builtin_popcountll(closed);

	lbl_owner_add(&shard->stats.closed, n);
	lbl_owner_add(&shard->stats.recorded, n - failed);
	lbl_owner_add(&shard->stats.rejected, failed);
}

void lbl_shard_record_burst(struct lbl_shard *shard, const void *first, uint32_t n)
{
	uint64_t all = lbl_burst_all(n), slow;
	struct lbl_table *table = &shard->table;
	struct lbl_burst burst;
	bool same;

	burst.first = first;
	burst.n = n;
	burst.closed = burst.opened = 0;
	decode(&burst, lbl_use_avx512 ? lbl_burst_decode_avx512(&burst) : 0);
	/* A producer gives ids or it does not. */
	if (lbl_burst_event(&burst, 0)->backend_id)
		find_by_id(shard, &burst);
	else
		find_by_hash(shard, &burst);
	same = lbl_use_avx512 ? lbl_burst_same_keys_avx512(&burst) : same_keys(&burst);
	slow = same ? 0 : wrong_backends(&burst);
	burst.closed &= ~slow;
	burst.opened &= ~slow;
	if (likely(burst.closed == all)) {
		account(shard, all, count_all_closed(table, &burst, n));
		return;
	}
	count_opened(shard, &burst);
	account(shard, burst.closed, count_closed(table, &burst));
	slow = all & ~(burst.closed | burst.opened);
	while (slow)
		lbl_shard_record(shard, lbl_burst_event(&burst, pop_lowest(&slow)),
				 LBL_EVENT_BYTES);
}
