// SPDX-License-Identifier: MIT
#include <endian.h>

#include "event/event.h"
#include "record/burst.h"
#include "record/burst_avx512.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))
/* Not `cold`: GCC would then move the code after each call out of line too. */
#define NOINLINE __attribute__((noinline))

bool lbl_use_avx512;

__attribute__((constructor)) static void choose(void)
{
	lbl_use_avx512 = lbl_has_avx512();
}

/* Remove the lowest event from a set and return its number. */
static inline uint32_t pop_lowest(uint64_t *set)
{
	uint32_t i = (uint32_t)__builtin_ctzll(*set);

	*set &= *set - 1;
	return i;
}

/* ---- decoding ---- */

/*
 * Return the reason of a closed event without LBL_FLAG_PROBE; otherwise more than any reason. One
 * compare is enough: type, reason and flags are bytes of the first word, and a wrong type or a
 * probe's flag ends up in high bits.
 */
static inline uint32_t fast_reason(uint64_t head)
{
	const uint32_t mask = 0xffffU | (uint32_t)LBL_FLAG_PROBE << 24;
	uint32_t word = ((uint32_t)le64toh(head) ^ LBL_CLOSED) & mask;

	return word >> 8 | word << 24;
}

/*
 * `created - 1 < ended` checks two conditions: that the creation time is known (0 - 1 is the
 * largest number), and that it is not after the end.
 */
static inline bool is_lifetime(uint64_t created, uint64_t ended)
{
	return created - 1 < ended && ended - created <= LBL_TOP_NS;
}

static inline bool is_opened(uint64_t head, uint64_t created, uint64_t at, uint64_t horizon)
{
	return (le64toh(head) & 0xff) == LBL_OPENED && (created ? created : at) >= horizon;
}

/* Decode the events from `from` on. */
static ALWAYS_INLINE void decode_from(struct lbl_burst *restrict burst, uint32_t from,
				      bool has_horizon)
{
	uint64_t closed = lbl_burst_all(burst->n) & ~lbl_burst_all(from), opened = 0, older = 0;
	uint64_t horizon = burst->horizon_ns, last = burst->last_ns;
	const char *at = burst->first + from * (size_t)LBL_EVENT_STRIDE;
	uint32_t n = burst->n, i;

	for (i = from; i < n; i++, at += LBL_EVENT_STRIDE) {
		const struct lbl_event *event = (const void *)at;
		uint64_t head = READ_ONCE((const uint64_t *)(const void *)event);
		uint64_t created = READ_ONCE(&event->created_ns);
		uint64_t ended = READ_ONCE(&event->timestamp_ns);
		uint64_t ns = ended - created;

		if (unlikely(fast_reason(head) >= LBL_HOT_REASONS ||
			     !is_lifetime(created, ended))) {
			closed &= ~(1ULL << i);
			opened |= (uint64_t)is_opened(head, created, ended, horizon) << i;
			ns = 0;
		} else if (unlikely(has_horizon && created < horizon)) {
			older |= 1ULL << i;
		}
		if (!has_horizon)
			last = ended > last ? ended : last;
		memcpy(&burst->head[i], &head, sizeof(head));
		burst->ns[i] = ns;
		burst->bits[i] = lbl_bits(ns);
	}
	burst->closed |= closed;
	burst->older |= older;
	burst->last_ns = last;
	burst->opened |= opened;
}

/* A constant `has_horizon` leaves out what is not needed. */
static void decode(struct lbl_burst *restrict burst, uint32_t from)
{
	if (burst->horizon_ns)
		decode_from(burst, from, true);
	else
		decode_from(burst, from, false);
}

/* ---- finding the counters ---- */

static inline void locate(const struct lbl_shard *shard, struct lbl_burst *restrict burst,
			  uint32_t i, uint32_t index)
{
	const struct lbl_bank *bank = &shard->banks[LBL_LIFETIME];
	uint64_t slot = lbl_slot_of(bank->buckets, burst->bits[i], &burst->ns[i]);

	burst->hot[i] = &shard->table.hot[index];
	burst->counter[i] = lbl_bank_counter(bank, index, slot);
	__builtin_prefetch(burst->hot[i], 1);
	__builtin_prefetch(burst->counter[i], 1);
}

/* Speculative: use the backend that this id mapped to last time; same_keys() verifies it. */
static void find_by_id(const struct lbl_shard *shard, struct lbl_burst *restrict burst)
{
	uint32_t i;

#pragma GCC unroll 4
	for (i = 0; i < burst->n; i++)
		locate(shard, burst, i, *lbl_table_by_id(&shard->table, burst->head[i].backend_id));
}

/* Speculative as well: use the first hash entry that may match the key. */
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

/* 0 if the keys are equal. Branchless, with three loads each, unlike memcmp(). */
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

/* Return the set of events with LBL_FLAG_IPV4 whose backend is not IPv4. */
static uint64_t contradictions(const struct lbl_burst *burst)
{
	uint64_t wrong = 0;
	uint32_t i;

	for (i = 0; i < burst->n; i++)
		wrong |= (uint64_t)lbl_event_contradicts_itself(lbl_burst_event(burst, i)) << i;
	return wrong;
}

/* Return the set of events whose address may be in a named VIP's key. */
static uint64_t reserved(const struct lbl_burst *burst)
{
	uint64_t wrong = 0;
	uint32_t i;

	for (i = 0; i < burst->n; i++)
		wrong |= (uint64_t)lbl_is_reserved(lbl_burst_event(burst, i)->addr) << i;
	return wrong;
}

/* ---- latencies besides lifetimes ---- */

/* Read a latency of the events from `from` on. */
static ALWAYS_INLINE void read_latency(struct lbl_burst *restrict burst,
				       struct lbl_burst_more *restrict more, enum lbl_metric metric,
				       uint32_t from)
{
	uint64_t measured = 0;
	uint32_t i;

	for (i = from; i < burst->n; i++) {
		uint64_t ns = lbl_latency_ns(metric, lbl_burst_event(burst, i), burst->ns[i]);
		bool is_measured = ns != LBL_NOT_MEASURED;

		measured |= (uint64_t)is_measured << i;
		ns = is_measured ? ns : 0;
		more->ns[i] = ns;
		more->bits[i] = lbl_bits(ns);
	}
	more->measured |= measured;
}

/* A constant metric makes the loop branchless. */
static void read_metric(struct lbl_burst *restrict burst, struct lbl_burst_more *restrict more,
			enum lbl_metric metric, uint32_t from)
{
	switch (metric) {
	case LBL_CONNECT:
		read_latency(burst, more, LBL_CONNECT, from);
		break;
	case LBL_FIRST_BYTE:
		read_latency(burst, more, LBL_FIRST_BYTE, from);
		break;
	case LBL_ACTIVE:
		read_latency(burst, more, LBL_ACTIVE, from);
		break;
	default:
		read_latency(burst, more, metric, from);
	}
}

static void read_more(const struct lbl_shard *shard, struct lbl_burst *restrict burst)
{
	uint32_t from = 0, k;

	for (k = 0; k < shard->n_more; k++)
		burst->more[k].measured = 0;
	if (lbl_use_avx512)
		from = lbl_burst_read_avx512(burst, shard->more, shard->n_more);
	for (k = 0; from < burst->n && k < shard->n_more; k++)
		read_metric(burst, &burst->more[k], shard->more[k], from);
}

/* A constant `n` unrolls the loop and keeps each bank's fields in registers. */
static ALWAYS_INLINE void locate_measured(const struct lbl_shard *shard,
					  struct lbl_burst *restrict burst, uint32_t n)
{
	struct lbl_bank banks[LBL_METRICS - 1]; /* copies, which no store can alias */
	uint32_t i, k;

#pragma GCC unroll 4
	for (k = 0; k < n; k++)
		banks[k] = shard->banks[shard->more[k]];
	for (i = 0; i < burst->n; i++) {
		uint32_t index = lbl_index_of(&shard->table, burst->hot[i]);

		__builtin_prefetch(lbl_shard_sums(shard, burst->hot[i]), 1);
#pragma GCC unroll 4
		for (k = 0; k < n; k++) {
			const struct lbl_bank *bank = &banks[k];
			struct lbl_burst_more *more = &burst->more[k];
			uint64_t slot = lbl_slot_of(bank->buckets, more->bits[i], &more->ns[i]);

			more->counter[i] = lbl_bank_counter(bank, index, slot);
			__builtin_prefetch(more->counter[i], 1);
		}
	}
}

/* Events without the latency increment a counter that nobody reads. */
static void divert_unmeasured(const struct lbl_burst *burst, struct lbl_burst_more *more)
{
	uint64_t unmeasured = lbl_burst_all(burst->n) & ~more->measured;

	more->unmeasured = 0;
	while (unmeasured)
		more->counter[pop_lowest(&unmeasured)] = &more->unmeasured;
}

static void locate_more(const struct lbl_shard *shard, struct lbl_burst *restrict burst)
{
	uint32_t k;

	read_more(shard, burst);
	if (shard->n_more == LBL_METRICS - 1)
		locate_measured(shard, burst, LBL_METRICS - 1);
	else
		locate_measured(shard, burst, shard->n_more);
	for (k = 0; k < shard->n_more; k++)
		divert_unmeasured(burst, &burst->more[k]);
}

/* ---- counting ---- */

static void count_opened(struct lbl_shard *shard, const struct lbl_burst *burst)
{
	uint64_t left = burst->opened;

	lbl_owner_add(&shard->outcomes.opened, (uint64_t)__builtin_popcountll(left));
	while (left)
		lbl_tally_inc(&shard->table, burst->hot[pop_lowest(&left)], LBL_HOT_OPENED);
}

/* Nobody may have seen these connections open. */
static NOINLINE void count_older(struct lbl_shard *shard, uint64_t left,
				 const struct lbl_burst *burst)
{
	while (left) {
		uint32_t index = lbl_index_of(&shard->table, burst->hot[pop_lowest(&left)]);

		lbl_owner_add(&shard->table.cold[index].not_open, -1);
	}
}

/* Out of line, so that no index is computed before it is needed. */
static NOINLINE bool carry_lifetime(struct lbl_shard *shard, struct lbl_hot *hot, uint8_t *counter)
{
	uint32_t index = lbl_index_of(&shard->table, hot);

	return lbl_bank_carry(&shard->banks[LBL_LIFETIME], index, counter);
}

static NOINLINE void carry_sum(struct lbl_shard *shard, struct lbl_hot *hot)
{
	lbl_bank_add_sum(&shard->banks[LBL_LIFETIME], lbl_index_of(&shard->table, hot), 0);
}

/* Returns false if memory is exhausted and the lifetime was not counted. */
static inline bool count_one_closed(struct lbl_shard *shard, const struct lbl_burst *burst,
				    uint32_t i)
{
	struct lbl_hot *hot = burst->hot[i];

	lbl_tally_inc(&shard->table, hot, burst->head[i].reason);
	if (unlikely(lbl_bump8(burst->counter[i], 1)) &&
	    !carry_lifetime(shard, hot, burst->counter[i]))
		return false;
	if (unlikely(lbl_bump64(&hot->sum, burst->ns[i])))
		carry_sum(shard, hot);
	return true;
}

static uint32_t count_closed(struct lbl_shard *shard, const struct lbl_burst *burst)
{
	uint64_t left = burst->closed;
	uint32_t failed = 0;

	while (left)
		failed += !count_one_closed(shard, burst, pop_lowest(&left));
	return failed;
}

/* The same for a burst of closed events only: a plain loop is faster than a set. */
static uint32_t count_all_closed(struct lbl_shard *shard, const struct lbl_burst *burst)
{
	uint32_t failed = 0, n = burst->n, i;

	for (i = 0; i < n; i++)
		failed += !count_one_closed(shard, burst, i);
	return failed;
}

/* Carry an incremented counter, then add to the sum. Returns 1 if memory is exhausted. */
static NOINLINE uint32_t carry_more(struct lbl_shard *shard, const struct lbl_burst *burst,
				    uint32_t k, uint32_t i)
{
	uint32_t index = lbl_index_of(&shard->table, burst->hot[i]);
	struct lbl_bank *bank = &shard->banks[shard->more[k]];

	if (!lbl_bank_carry(bank, index, burst->more[k].counter[i]))
		return 1;
	lbl_bank_add_sum(bank, index, burst->more[k].ns[i]);
	return 0;
}

static NOINLINE void carry_more_sum(struct lbl_shard *shard, const struct lbl_hot *hot, uint32_t k)
{
	lbl_bank_add_sum(&shard->banks[shard->more[k]], lbl_index_of(&shard->table, hot), 0);
}

static ALWAYS_INLINE uint32_t count_one_more(struct lbl_shard *shard, const struct lbl_burst *burst,
					     uint32_t i, uint32_t n)
{
	uint64_t *sums = lbl_shard_sums(shard, burst->hot[i]);
	uint32_t failed = 0, k;

#pragma GCC unroll 4
	for (k = 0; k < n; k++) {
		const struct lbl_burst_more *more = &burst->more[k];

		if (unlikely(lbl_bump8(more->counter[i], 1)))
			failed += carry_more(shard, burst, k, i);
		else if (unlikely(lbl_bump64(&sums[k], more->ns[i])))
			carry_more_sum(shard, burst->hot[i], k);
	}
	return failed;
}

/*
 * Returns the number of durations lost because memory is exhausted. A constant `n` unrolls the
 * loop.
 */
static ALWAYS_INLINE uint32_t count_more_of(struct lbl_shard *shard, const struct lbl_burst *burst,
					    uint32_t n)
{
	uint64_t left = burst->closed;
	uint32_t failed = 0, i;

	if (likely(left == lbl_burst_all(burst->n))) {
		for (i = 0; i < burst->n; i++)
			failed += count_one_more(shard, burst, i, n);
		return failed;
	}
	while (left)
		failed += count_one_more(shard, burst, pop_lowest(&left), n);
	return failed;
}

static void count_more(struct lbl_shard *shard, const struct lbl_burst *burst)
{
	uint32_t failed;

	if (shard->n_more == LBL_METRICS - 1)
		failed = count_more_of(shard, burst, LBL_METRICS - 1);
	else
		failed = count_more_of(shard, burst, shard->n_more);
	lbl_owner_add(&shard->outcomes.not_counted, failed);
}

static void account(struct lbl_shard *shard, uint64_t closed, uint32_t failed)
{
	uint64_t n = (uint64_t)__builtin_popcountll(closed);

	lbl_owner_add(&shard->outcomes.closed, n);
	lbl_owner_add(&shard->outcomes.recorded, n - failed);
	lbl_owner_add(&shard->outcomes.rejected, failed);
}

/* ---- the stages ---- */

/* Returns the set of events that take the slow path because the speculation failed. */
static uint64_t locate_all(const struct lbl_shard *shard, struct lbl_burst *restrict burst)
{
	uint64_t slow;
	bool same;

	decode(burst, lbl_use_avx512 ? lbl_burst_decode_avx512(burst) : 0);
	/* A producer sets ids on all events or on none, so the first one decides. */
	if (lbl_burst_event(burst, 0)->backend_id)
		find_by_id(shard, burst);
	else
		find_by_hash(shard, burst);
	if (shard->n_more)
		locate_more(shard, burst);
	same = lbl_use_avx512 ? lbl_burst_same_keys_avx512(burst) : same_keys(burst);
	slow = same ? 0 : wrong_backends(burst);
	if (unlikely(shard->table.has_ipv6))
		slow |= contradictions(burst);
	if (unlikely(shard->proxies.n_vips))
		slow |= reserved(burst);
	return slow;
}

/*
 * Return whether the horizon may be set before or between the events, so that each takes the one of
 * its turn. What is slow passes by itself, if at all.
 */
static bool may_set_horizon(const struct lbl_shard *shard, const struct lbl_burst *burst,
			    uint64_t slow)
{
	if (burst->opened || slow)
		return true;
	return burst->closed && !lbl_shared_pass(shard->shared, burst->last_ns);
}

void lbl_shard_record_burst(struct lbl_shard *shard, const void *first, uint32_t n)
{
	uint64_t all = lbl_burst_all(n), horizon = lbl_shard_horizon(shard), slow;
	bool is_set = lbl_horizon_is_set(horizon);
	struct lbl_burst burst;

	burst.first = first;
	burst.n = n;
	burst.horizon_ns = is_set ? horizon : 0;
	burst.closed = burst.older = burst.opened = burst.last_ns = 0;
	slow = locate_all(shard, &burst);
	if (unlikely(!is_set) && may_set_horizon(shard, &burst, slow))
		slow = all;
	burst.closed &= ~slow;
	burst.opened &= ~slow;
	if (likely(burst.closed == all)) {
		account(shard, all, count_all_closed(shard, &burst));
	} else {
		count_opened(shard, &burst);
		account(shard, burst.closed, count_closed(shard, &burst));
	}
	if (unlikely(burst.older & burst.closed))
		count_older(shard, burst.older & burst.closed, &burst);
	if (shard->n_more)
		count_more(shard, &burst);
	slow = all & ~(burst.closed | burst.opened);
	while (unlikely(slow))
		lbl_shard_record(shard, lbl_burst_event(&burst, pop_lowest(&slow)),
				 LBL_EVENT_BYTES);
}

/* ---- the sink ---- */

static void take_record(struct lbl_sink *sink, const void *data, uint32_t len)
{
	lbl_shard_record((struct lbl_shard *)sink, data, len);
}

static void take_burst(struct lbl_sink *sink, const void *first, uint32_t n)
{
	lbl_shard_record_burst((struct lbl_shard *)sink, first, n);
}

const struct lbl_sink_ops lbl_shard_ops = { .burst = take_burst, .record = take_record };
