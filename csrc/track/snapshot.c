// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "track/expiry.h"
#include "track/parts.h"
#include "track/snapshot.h"

/* ---- rows ---- */

/* The state of building a snapshot. */
struct builder {
	struct lbl_snapshot *snapshot;
	size_t capacity; /* in pairs */
	enum lbl_metric metric;
	uint64_t rank; /* of the current backend */
	struct lbl_totals totals;
	struct lbl_tallies tallies;
};

static int reserve_pairs(struct builder *builder, size_t more)
{
	struct lbl_snapshot *snapshot = builder->snapshot;
	size_t n = snapshot->n_pairs + more, larger = builder->capacity ? builder->capacity : 1024;
	uint16_t *slots;
	uint64_t *counts;

	if (n <= builder->capacity)
		return 0;
	while (larger < n)
		larger *= 2;
	slots = reallocarray(snapshot->slots, larger, sizeof(*slots));
	if (slots)
		snapshot->slots = slots;
	counts = reallocarray(snapshot->counts, larger, sizeof(*counts));
	if (counts)
		snapshot->counts = counts;
	if (!slots || !counts)
		return -ENOMEM;
	builder->capacity = larger;
	return 0;
}

static uint64_t at_least_0(int64_t n)
{
	return n > 0 ? (uint64_t)n : 0;
}

static int add_row(struct builder *builder, const struct lbl_key *key)
{
	const struct lbl_tallies *tallies = &builder->tallies;
	const struct lbl_totals *totals = &builder->totals;
	struct lbl_snapshot *snapshot = builder->snapshot;
	struct lbl_backend_snapshot *row = &snapshot->rows[snapshot->n_rows];
	size_t n = snapshot->n_pairs;
	uint32_t i;

	if (totals->end > totals->first && reserve_pairs(builder, totals->end - totals->first))
		return -ENOMEM;
	*row = (struct lbl_backend_snapshot){
		.name = key->proxy_ref,
		.port = key->port,
		.sum_lo = (uint64_t)totals->sum,
		.sum_hi = (uint64_t)(totals->sum >> 64),
		.opened = tallies->opened + at_least_0(tallies->open_before),
		.open = at_least_0(tallies->open),
		.probes = tallies->probes,
		.rank = builder->rank,
		.first = snapshot->n_pairs,
	};
	memcpy(row->addr, key->addr, sizeof(row->addr));
	memcpy(row->closed, tallies->closed, sizeof(row->closed));
	for (i = totals->first; i < totals->end; i++) { /* what is 0 is overwritten: no branch */
		snapshot->slots[n] = (uint16_t)i;
		snapshot->counts[n] = totals->slots[i];
		row->count += totals->slots[i];
		n += totals->slots[i] != 0;
	}
	row->n = (uint32_t)(n - snapshot->n_pairs);
	snapshot->n_pairs = n;
	snapshot->n_rows++;
	return 0;
}

/* Shards know backends in the order in which each of them came first. */
static uint64_t rank_of(const struct lbl_part *part)
{
	return (uint64_t)part->index << 32 | part->shard_number;
}

static void read_part(struct builder *builder, const struct lbl_shard *shard, uint32_t index)
{
	lbl_shard_tallies(shard, index, &builder->tallies);
	lbl_bank_read(&shard->banks[builder->metric], index, &builder->totals);
}

/* Merge each backend's parts into a row. */
static int add_rows(struct builder *builder, const struct lbl_part *parts, size_t n)
{
	int err = 0;
	size_t i = 0;

	while (i < n && !err) {
		size_t first = i, end = lbl_parts_end(parts, n, first);

		lbl_totals_clear(&builder->totals);
		builder->tallies = (struct lbl_tallies){ 0 };
		builder->rank = UINT64_MAX;
		for (; i < end; i++) {
			if (builder->rank > rank_of(&parts[i]))
				builder->rank = rank_of(&parts[i]);
			read_part(builder, parts[i].shard, parts[i].index);
		}
		err = add_row(builder, &parts[first].key);
	}
	return err;
}

/* A row without a name, like the overflow backend's; the port tells them apart. */
static int add_removed(struct builder *builder, struct lbl_shard *removed)
{
	const struct lbl_key key = { .port = LBL_REMOVED };

	if (!lbl_shard_activity(removed, 0, &builder->totals))
		return 0;
	lbl_totals_clear(&builder->totals);
	builder->tallies = (struct lbl_tallies){ 0 };
	read_part(builder, removed, 0);
	return add_row(builder, &key);
}

/* `removed` is NULL if the snapshot is of one backend. */
static int make_snapshot(const struct lbl_part *parts, size_t n, struct lbl_shard *removed,
			 enum lbl_metric metric, struct lbl_snapshot **ret)
{
	struct lbl_snapshot *snapshot = calloc(1, sizeof(*snapshot));
	struct builder *builder = calloc(1, sizeof(*builder));
	int err = -ENOMEM;

	if (snapshot)
		snapshot->rows = calloc(n + 1, sizeof(*snapshot->rows));
	if (builder && snapshot && snapshot->rows) {
		builder->snapshot = snapshot;
		builder->metric = metric;
		err = add_rows(builder, parts, n);
		if (!err && removed)
			err = add_removed(builder, removed);
	}
	free(builder);
	if (err)
		lbl_snapshot_free(snapshot);
	else
		*ret = snapshot;
	return err;
}

void lbl_snapshot_free(struct lbl_snapshot *snapshot)
{
	if (!snapshot)
		return;
	free(snapshot->rows);
	free(snapshot->slots);
	free(snapshot->counts);
	free(snapshot);
}

/* ---- reading a tracker ---- */

static bool has_metric(const struct lbl_tracker *tracker, enum lbl_metric metric)
{
	return metric < LBL_METRICS && lbl_shard_has(tracker->own, metric);
}

static int snapshot_all(struct lbl_tracker *tracker, enum lbl_metric metric, bool with_copies,
			struct lbl_snapshot **ret)
{
	struct lbl_part *parts = NULL;
	int err = -ENOMEM;
	size_t n, n_shards;

	if (!has_metric(tracker, metric))
		return -ENOENT;
	pthread_mutex_lock(&tracker->lock);
	lbl_expiry_catch_up(tracker);
	n_shards = with_copies || !tracker->is_copy ? lbl_tracker_shards(tracker) : 1;
	n = lbl_parts_gather(tracker, n_shards, &parts);
	if (n)
		err = make_snapshot(parts, n, tracker->removed, metric, ret);
	pthread_mutex_unlock(&tracker->lock);
	free(parts);
	return err;
}

int lbl_tracker_snapshot(struct lbl_tracker *tracker, enum lbl_metric metric,
			 struct lbl_snapshot **ret)
{
	return snapshot_all(tracker, metric, true, ret);
}

int lbl_tracker_snapshot_own(struct lbl_tracker *tracker, enum lbl_metric metric,
			     struct lbl_snapshot **ret)
{
	return snapshot_all(tracker, metric, false, ret);
}

int lbl_tracker_snapshot_one(struct lbl_tracker *tracker, enum lbl_metric metric, uint16_t name,
			     const uint8_t *addr, uint16_t port, struct lbl_snapshot **ret)
{
	struct lbl_key key = { .port = port, .proxy_ref = name };
	struct lbl_part *parts;
	size_t n;
	int err;

	if (!has_metric(tracker, metric))
		return -ENOENT;
	memcpy(key.addr, addr, sizeof(key.addr));
	pthread_mutex_lock(&tracker->lock);
	lbl_expiry_catch_up(tracker);
	err = lbl_parts_find(tracker, &key, &parts, &n);
	if (!err)
		err = make_snapshot(parts, n, NULL, metric, ret);
	pthread_mutex_unlock(&tracker->lock);
	free(parts);
	return err;
}
