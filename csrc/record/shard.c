// SPDX-License-Identifier: MIT
#include <math.h>
#include <stdlib.h>

#include "event/decode.h"
#include "record/shard.h"

/* ---- creation ---- */

static void init_banks(struct lbl_shard *shard, struct lbl_buckets *const buckets[LBL_METRICS])
{
	uint32_t i;

	lbl_bank_init(&shard->banks[LBL_LIFETIME], buckets[LBL_LIFETIME]);
	for (i = LBL_LIFETIME + 1; i < LBL_METRICS; i++) {
		if (!buckets[i])
			continue;
		lbl_bank_init(&shard->banks[i], buckets[i]);
		shard->more[shard->n_more++] = (enum lbl_metric)i;
	}
}

static int reserve_more(struct lbl_shard *shard, size_t n)
{
	int err = lbl_array_reserve(&shard->sums_memory, n * LBL_SUMS_BYTES);
	uint32_t i;

	for (i = 0; i < shard->n_more; i++) {
		struct lbl_bank *bank = &shard->banks[shard->more[i]];

		if (!err)
			err = lbl_bank_reserve(bank, n);
		lbl_bank_set_sums(bank, shard->sums_memory.at + i * sizeof(uint64_t),
				  LBL_SUMS_BYTES);
	}
	return err;
}

/* The table is last: its limit says what all have room for. */
int lbl_shard_reserve(struct lbl_shard *shard, uint32_t capacity)
{
	struct lbl_bank *bank = &shard->banks[LBL_LIFETIME];
	size_t n = (size_t)capacity + 1;
	int err = lbl_bank_reserve(bank, n);

	if (!err && shard->n_more)
		err = reserve_more(shard, n);
	if (!err)
		err = lbl_table_reserve(&shard->table, capacity);
	lbl_bank_set_sums(bank, &shard->table.hot->sum, sizeof(*shard->table.hot));
	return err;
}

enum { FEW_BACKENDS = 16 };

int lbl_shard_make_room(struct lbl_shard *shard)
{
	uint32_t max = shard->table.max;

	if (!lbl_table_is_full(&shard->table))
		return 0;
	if (max == LBL_BACKENDS_MAX)
		return -ENOSPC;
	max = max < FEW_BACKENDS ? FEW_BACKENDS : 2 * max;
	return lbl_shard_reserve(shard, max < LBL_BACKENDS_MAX ? max : LBL_BACKENDS_MAX);
}

/* Make `n` backends usable in all banks. */
static int grow(struct lbl_shard *shard, size_t n)
{
	int err = lbl_bank_grow(&shard->banks[LBL_LIFETIME], n);
	uint32_t i;

	if (shard->n_more && !err)
		err = lbl_array_grow(&shard->sums_memory, n * LBL_SUMS_BYTES);
	for (i = 0; i < shard->n_more && !err; i++)
		err = lbl_bank_grow(&shard->banks[shard->more[i]], n);
	return err;
}

static int init(struct lbl_shard *shard, struct lbl_buckets *const buckets[LBL_METRICS],
		uint32_t capacity)
{
	int err = lbl_table_init(&shard->table, !shard->by_name);

	if (err)
		return err;
	init_banks(shard, buckets);
	err = lbl_shard_reserve(shard, capacity);
	return err ? err : grow(shard, 1);
}

static void destroy(struct lbl_shard *shard)
{
	uint32_t i;

	for (i = 0; i < LBL_METRICS; i++) {
		if (lbl_shard_has(shard, (enum lbl_metric)i))
			lbl_bank_destroy(&shard->banks[i], shard->table.n);
	}
	lbl_array_release(&shard->sums_memory);
	lbl_table_destroy(&shard->table);
	lbl_proxies_destroy(&shard->proxies);
	free(shard);
}

int lbl_shard_new(struct lbl_buckets *const buckets[LBL_METRICS], uint32_t capacity,
		  struct lbl_intern *names, const struct lbl_sink_ops *ops,
		  struct lbl_shared *shared, struct lbl_shard **ret)
{
	struct lbl_shard *shard = calloc(1, sizeof(*shard));
	int err;

	if (!shard)
		return -ENOMEM;
	shard->by_name = !ops->record;
	shard->shared = shared;
	shard->horizon = LBL_HORIZON_UNSET;
	err = init(shard, buckets, capacity);
	if (!err && !shard->by_name)
		err = lbl_proxies_init(&shard->proxies, names);
	if (err) {
		destroy(shard);
		return err;
	}
	lbl_sink_init(&shard->sink, ops);
	*ret = shard;
	return 0;
}

void lbl_shard_free(struct lbl_shard *shard)
{
	if (!shard)
		return;
	lbl_sink_destroy(&shard->sink);
	destroy(shard);
}

/* ---- finding backends ---- */

uint32_t lbl_shard_backend(struct lbl_shard *shard, const struct lbl_key *key)
{
	uint32_t index = lbl_table_find(&shard->table, key);
	uint16_t name;

	if (likely(index))
		return index;
	if (lbl_table_is_full(&shard->table) ||
	    grow(shard, (size_t)lbl_table_next(&shard->table) + 1))
		return 0;
	name = shard->by_name ? key->proxy_ref : lbl_proxies_name(&shard->proxies, key);
	return name ? lbl_table_insert(&shard->table, key, name) : 0;
}

struct lbl_key lbl_shard_named(const struct lbl_shard *shard, uint32_t index, uint16_t name)
{
	const struct lbl_key *key = &shard->table.hot[index].key;

	return shard->by_name ? *key : lbl_key_named(key, name);
}

uint32_t lbl_shard_next_named(const struct lbl_shard *shard, const struct lbl_key *named,
			      size_t *at)
{
	struct lbl_key key;
	uint32_t index = 0;

	if (shard->by_name)
		return (*at)++ ? 0 : lbl_table_find(&shard->table, named);
	while (!index && lbl_proxies_next(&shard->proxies, named, at, &key))
		index = lbl_table_find(&shard->table, &key);
	return index;
}

/* ---- recording ---- */

/*
 * Creation time: from the event, else from its opened event, else from the last source; 0 if
 * unknown, or if two connections could be meant.
 */
static uint64_t created_of(struct lbl_shard *shard, const struct lbl_decoded_event *decoded)
{
	const struct lbl_birth_source *birth_source = &shard->birth_source;
	uint64_t created_ns = decoded->event.created_ns;
	bool was_seen;

	if (created_ns || !decoded->has_client)
		return created_ns;
	pthread_mutex_lock(&shard->shared->lock);
	was_seen = lbl_births_take(&shard->shared->births, decoded, &created_ns);
	pthread_mutex_unlock(&shard->shared->lock);
	if (!was_seen && birth_source->created_ns)
		created_ns = birth_source->created_ns(birth_source->ctx, decoded);
	else if (birth_source->used)
		birth_source->used(birth_source->ctx, decoded);
	return created_ns;
}

static void remember_birth(struct lbl_shard *shard, const struct lbl_decoded_event *decoded)
{
	int forgotten;

	pthread_mutex_lock(&shard->shared->lock);
	forgotten = lbl_births_insert(&shard->shared->births, decoded);
	pthread_mutex_unlock(&shard->shared->lock);
	if (forgotten)
		lbl_owner_add(&shard->outcomes.births_evicted, 1);
}

static void record_opened(struct lbl_shard *shard, const struct lbl_decoded_event *decoded,
			  uint32_t index)
{
	uint64_t began_ns = lbl_event_began(&decoded->event);

	lbl_shared_settle_horizon(shard->shared, began_ns);
	if (began_ns < lbl_shard_horizon(shard))
		lbl_owner_add(&shard->table.cold[index].not_open, 1);
	lbl_owner_add(&shard->outcomes.opened, 1);
	lbl_tally_inc(&shard->table, &shard->table.hot[index], LBL_HOT_OPENED);
	if (decoded->has_client)
		remember_birth(shard, decoded);
}

/* Returns the lifetime, or LBL_NOT_MEASURED if it is unknown or implausible. */
static uint64_t record_lifetime(struct lbl_shard *shard, uint32_t index, uint64_t created_ns,
				uint64_t ended_ns)
{
	struct lbl_bank *bank = &shard->banks[LBL_LIFETIME];
	uint64_t lifetime = ended_ns - created_ns;

	if (!created_ns) {
		lbl_owner_add(&shard->outcomes.unmatched, 1);
		return LBL_NOT_MEASURED;
	}
	if (created_ns > ended_ns || lifetime > LBL_LIFETIME_MAX) {
		lbl_owner_add(&shard->outcomes.rejected, 1);
		return LBL_NOT_MEASURED;
	}
	if (lbl_bank_count(bank, index, lifetime)) {
		lbl_bank_add_sum(bank, index, lifetime);
		lbl_owner_add(&shard->outcomes.recorded, 1);
	} else {
		lbl_owner_add(&shard->outcomes.rejected, 1);
	}
	return lifetime;
}

static void record_more(struct lbl_shard *shard, const struct lbl_event *event, uint32_t index,
			uint64_t lifetime)
{
	uint32_t i;

	for (i = 0; i < shard->n_more; i++) {
		struct lbl_bank *bank = &shard->banks[shard->more[i]];
		uint64_t ns = lbl_latency_ns(shard->more[i], event, lifetime);

		if (ns == LBL_NOT_MEASURED)
			continue;
		if (lbl_bank_count(bank, index, ns))
			lbl_bank_add_sum(bank, index, ns);
		else
			lbl_owner_add(&shard->outcomes.not_counted, 1);
	}
}

/*
 * The horizon that counts for a closed event. It is looked at after `births`: what another ring's
 * opened event left there, it left after it had set the horizon.
 */
static uint64_t horizon_of(struct lbl_shard *shard, const struct lbl_decoded_event *closed,
			   uint64_t created_ns)
{
	uint64_t horizon = lbl_shard_horizon(shard), ended_ns = closed->event.timestamp_ns;
	bool is_told = created_ns || closed->has_client;

	if (!lbl_horizon_is_set(horizon) && is_told && created_ns <= ended_ns &&
	    !lbl_shared_pass(shard->shared, ended_ns))
		horizon = lbl_shard_horizon(shard);
	return horizon;
}

static void record_closed(struct lbl_shard *shard, const struct lbl_decoded_event *decoded,
			  uint32_t index)
{
	const struct lbl_event *event = &decoded->event;
	uint64_t created_ns = created_of(shard, decoded), lifetime;
	uint64_t horizon = horizon_of(shard, decoded, created_ns);

	lbl_owner_add(&shard->outcomes.closed, 1);
	if (created_ns && created_ns < horizon && lbl_horizon_is_set(horizon))
		lbl_owner_add(&shard->table.cold[index].not_open, -1);
	if (event->flags & LBL_FLAG_PROBE) {
		lbl_owner_add(&shard->table.cold[index].probes, 1);
		lbl_owner_add(&shard->outcomes.ignored, 1);
		return;
	}
	lbl_tally_add_closed(&shard->table, index, event->reason, 1);
	if (event->reason == LBL_REASON_CONNECT_FAILED) {
		lbl_owner_add(&shard->outcomes.ignored, 1);
		return;
	}
	lifetime = record_lifetime(shard, index, created_ns, event->timestamp_ns);
	record_more(shard, event, index, lifetime);
}

/* Handles every format, and must agree with lbl_shard_record_burst(). */
void lbl_shard_record(struct lbl_shard *shard, const void *data, uint32_t len)
{
	struct lbl_decoded_event decoded;
	struct lbl_key key;
	uint32_t index;

	if (lbl_decode(data, len, &decoded)) {
		lbl_owner_add(&shard->outcomes.malformed, 1);
		return;
	}
	if (decoded.event.type == LBL_PERIODIC) {
		lbl_owner_add(&shard->outcomes.periodic, 1);
		return;
	}
	key = lbl_proxies_key(&shard->proxies, &decoded);
	index = lbl_shard_backend(shard, &key);
	if (decoded.event.backend_id)
		lbl_table_remember(&shard->table, decoded.event.backend_id, index);
	if (decoded.event.type == LBL_OPENED)
		record_opened(shard, &decoded, index);
	else
		record_closed(shard, &decoded, index);
}

/* Round to ns. The caller has checked, but another thread may change the caller's buffer. */
static uint64_t to_ns(double seconds)
{
	uint64_t ns = (uint64_t)llrint(seconds * 1e9);

	return ns < LBL_OBSERVE_MAX ? ns : LBL_OBSERVE_MAX;
}

static void account_observed(struct lbl_shard *shard, enum lbl_metric metric, uint32_t index,
			     uint64_t n)
{
	if (metric == LBL_LIFETIME)
		lbl_tally_add_closed(&shard->table, index, LBL_REASON_UNKNOWN, n);
	lbl_owner_add(&shard->outcomes.observed, n);
}

size_t lbl_shard_observe(struct lbl_shard *shard, enum lbl_metric metric, uint32_t index,
			 const double *seconds, size_t n)
{
	struct lbl_bank *bank = &shard->banks[metric];
	size_t observed = 0, i;
	lbl_u128 sum = 0;

	for (i = 0; i < n; i++) {
		uint64_t ns = to_ns(seconds[i]);

		if (unlikely(!lbl_bank_count(bank, index, ns)))
			continue;
		sum += ns;
		observed++;
	}
	lbl_bank_add_sum(bank, index, sum);
	account_observed(shard, metric, index, observed);
	return observed;
}

int lbl_shard_add(struct lbl_shard *shard, enum lbl_metric metric, uint32_t index,
		  const struct lbl_totals *totals, uint64_t count)
{
	uint64_t lost;

	if (count > LBL_OBSERVED_MAX || shard->outcomes.observed > LBL_OBSERVED_MAX - count)
		return -ERANGE;
	lost = lbl_bank_merge(&shard->banks[metric], index, totals);
	account_observed(shard, metric, index, count - lost);
	return lost ? -ENOMEM : 0;
}

/* ---- merging and clearing ---- */

void lbl_outcomes_add(struct lbl_outcomes *to, const struct lbl_outcomes *from)
{
	const uint64_t *value = (const uint64_t *)from;
	uint64_t *sum = (uint64_t *)to;
	size_t i;

	for (i = 0; i < sizeof(*to) / sizeof(*sum); i++)
		lbl_owner_add(&sum[i], READ_ONCE(&value[i]));
}

/* Returns the number of observations lost because memory was exhausted. */
static uint64_t merge_bank(struct lbl_shard *shard, uint32_t to, const struct lbl_shard *from,
			   uint32_t index, enum lbl_metric metric, struct lbl_totals *scratch)
{
	lbl_totals_clear(scratch);
	lbl_bank_read(&from->banks[metric], index, scratch);
	return lbl_bank_merge(&shard->banks[metric], to, scratch);
}

/* Add one backend's counts to another's. What memory has no room for is corrected in `outcomes`. */
static void merge_backend(struct lbl_shard *shard, uint32_t to, const struct lbl_shard *from,
			  uint32_t index, struct lbl_outcomes *outcomes, struct lbl_totals *scratch)
{
	struct lbl_tallies tallies = { 0 };
	uint64_t lost;
	uint32_t i;

	lbl_tallies_read(&from->table, index, &tallies);
	lbl_tallies_merge(&shard->table, to, &tallies);
	lost = merge_bank(shard, to, from, index, LBL_LIFETIME, scratch);
	lbl_owner_add(&outcomes->recorded, -lost);
	lbl_owner_add(&outcomes->rejected, lost);
	for (i = 0; i < from->n_more; i++) {
		lost = merge_bank(shard, to, from, index, from->more[i], scratch);
		lbl_owner_add(&outcomes->not_counted, lost);
	}
}

static uint32_t same_backend(struct lbl_shard *shard, const struct lbl_shard *from, uint32_t index)
{
	const struct lbl_key key = lbl_shard_named(from, index, from->table.cold[index].name);

	lbl_shard_make_room(shard); /* on failure, a new backend is not told apart */
	return lbl_shard_backend(shard, &key);
}

void lbl_shard_merge(struct lbl_shard *shard, const struct lbl_shard *from,
		     struct lbl_totals *scratch)
{
	uint32_t i;

	merge_backend(shard, 0, from, 0, &shard->outcomes, scratch);
	for (i = 1; i < from->table.n; i++) {
		if (from->table.cold[i].name)
			merge_backend(shard, same_backend(shard, from, i), from, i,
				      &shard->outcomes, scratch);
	}
	lbl_outcomes_add(&shard->outcomes, &from->outcomes);
}

static bool knows_open(const struct lbl_shard *shard)
{
	uint64_t horizon = shard->shared ? lbl_shared_horizon(shard->shared) : LBL_HORIZON_UNSET;

	/* Pairs with lbl_shard_take_horizon(): who sees the horizon sees what is not open by it. */
	return lbl_horizon_is_set(horizon) &&
	       horizon == __atomic_load_n(&shard->horizon, __ATOMIC_ACQUIRE);
}

void lbl_shard_tallies(const struct lbl_shard *shard, uint32_t index, struct lbl_tallies *tallies)
{
	int64_t open = tallies->open;
	bool known = knows_open(shard);

	lbl_tallies_read(&shard->table, index, tallies);
	if (!known)
		tallies->open = open;
}

void lbl_shard_take_horizon(struct lbl_shard *shard, uint64_t horizon)
{
	uint32_t i;

	for (i = 0; i < shard->table.n; i++)
		lbl_tally_none_open(&shard->table, i);
	__atomic_store_n(&shard->horizon, horizon, __ATOMIC_RELEASE);
}

void lbl_shard_clear(struct lbl_shard *shard, uint32_t index, bool keep_open)
{
	uint32_t i;

	lbl_table_clear(&shard->table, index, keep_open && knows_open(shard));
	lbl_bank_clear(&shard->banks[LBL_LIFETIME], index);
	for (i = 0; i < shard->n_more; i++)
		lbl_bank_clear(&shard->banks[shard->more[i]], index);
}

/* ---- removing ---- */

/* The tallies count every event, and a lifetime recorded by hand; other latencies only in a bank. */
uint64_t lbl_shard_activity(struct lbl_shard *shard, uint32_t index, struct lbl_totals *scratch)
{
	struct lbl_tallies tallies = { 0 };
	uint64_t n;
	uint32_t i, k;

	lbl_tallies_read(&shard->table, index, &tallies);
	n = tallies.opened + tallies.probes;
	for (i = 0; i < LBL_REASONS; i++)
		n += tallies.closed[i];
	for (i = 0; i < shard->n_more && shard->by_name; i++) {
		lbl_totals_clear(scratch);
		lbl_bank_read(&shard->banks[shard->more[i]], index, scratch);
		for (k = scratch->first; k < scratch->end; k++)
			n += scratch->slots[k];
	}
	return n;
}

void lbl_shard_unlink(struct lbl_shard *shard, uint32_t index)
{
	shard->n_by_hand -= shard->table.cold[index].by_hand;
	lbl_table_unlink(&shard->table, index);
}

bool lbl_shard_free_one(struct lbl_shard *shard, struct lbl_shard *to, struct lbl_totals *scratch)
{
	uint32_t index = shard->table.unlinked;

	if (!index)
		return false;
	merge_backend(to, 0, shard, index, &shard->outcomes, scratch);
	lbl_shard_clear(shard, index, false);
	lbl_table_free(&shard->table);
	return true;
}
