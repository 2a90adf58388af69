// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "track/snapshot.h"
#include "track/state.h"

/* One shard's part of a backend; parts of the same backend have equal keys. */
struct part {
	struct lbl_key key; /* proxy_ref is the name's number, as in all shards' parts */
	uint32_t index;
	const struct lbl_shard *shard;
};

static int compare_parts(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct lbl_key));
}

static struct part part_of(const struct lbl_shard *shard, uint32_t index)
{
	struct part part = { .shard = shard, .index = index };

	if (index) {
		part.key = shard->table.hot[index].key;
		part.key.proxy_ref = shard->table.cold[index].name;
	}
	return part;
}

/* ---- rows ---- */

/* The state of building a snapshot. */
struct builder {
	struct lbl_snapshot *snapshot;
	size_t capacity; /* in pairs */
	enum lbl_metric metric;
	struct lbl_totals totals; /* of the current backend */
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

static int add_row(struct builder *builder, const struct lbl_key *key)
{
	const struct lbl_tallies *tallies = &builder->tallies;
	const struct lbl_totals *totals = &builder->totals;
	struct lbl_snapshot *snapshot = builder->snapshot;
	struct lbl_backend_snapshot *row = &snapshot->rows[snapshot->n_rows];
	uint32_t i;

	if (totals->end > totals->first && reserve_pairs(builder, totals->end - totals->first))
		return -ENOMEM;
	*row = (struct lbl_backend_snapshot){
		.name = key->proxy_ref,
		.port = key->port,
		.sum_lo = (uint64_t)totals->sum,
		.sum_hi = (uint64_t)(totals->sum >> 64),
		.opened = tallies->opened,
		.open = tallies->open > 0 ? (uint64_t)tallies->open : 0,
		.probes = tallies->probes,
		.first = snapshot->n_pairs,
	};
	memcpy(row->addr, key->addr, sizeof(row->addr));
	memcpy(row->closed, tallies->closed, sizeof(row->closed));
	for (i = totals->first; i < totals->end; i++) {
		if (!totals->slots[i])
			continue;
		snapshot->slots[snapshot->n_pairs] = (uint16_t)i;
		snapshot->counts[snapshot->n_pairs++] = totals->slots[i];
		row->count += totals->slots[i];
		row->n++;
	}
	snapshot->n_rows++;
	return 0;
}

static void read_part(struct builder *builder, const struct part *part)
{
	lbl_tallies_read(&part->shard->table, part->index, &builder->tallies);
	lbl_bank_read(&part->shard->banks[builder->metric], part->index, &builder->totals);
}

/* Merge adjacent parts with equal keys into one row each. */
static int add_rows(struct builder *builder, const struct part *parts, size_t n)
{
	int err = 0;
	size_t i = 0;

	while (i < n && !err) {
		size_t first = i;

		lbl_totals_clear(&builder->totals);
		builder->tallies = (struct lbl_tallies){ 0 };
		for (; i < n && !compare_parts(&parts[first], &parts[i]); i++)
			read_part(builder, &parts[i]);
		err = add_row(builder, &parts[first].key);
	}
	return err;
}

static int make_snapshot(struct part *parts, size_t n, enum lbl_metric metric,
			 struct lbl_snapshot **ret)
{
	struct lbl_snapshot *snapshot = calloc(1, sizeof(*snapshot));
	struct builder *builder = calloc(1, sizeof(*builder));
	int err = -ENOMEM;

	if (snapshot)
		snapshot->rows = calloc(n + 1, sizeof(*snapshot->rows));
	if (builder && snapshot && snapshot->rows) {
		if (n)
			qsort(parts, n, sizeof(*parts), compare_parts);
		builder->snapshot = snapshot;
		builder->metric = metric;
		err = add_rows(builder, parts, n);
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

/* ---- all backends ---- */

/* Of the first `n_shards` shards, the own one first. */
static size_t gather(struct lbl_tracker *tracker, size_t n_shards, struct part **ret)
{
	size_t capacity = 0, n = 0, i;
	struct part *parts;
	uint32_t *sizes;

	sizes = calloc(n_shards, sizeof(*sizes));
	if (!sizes)
		return 0;
	for (i = 0; i < n_shards; i++) {
		struct lbl_shard *shard = lbl_tracker_shard(tracker, i);

		sizes[i] = __atomic_load_n(&shard->table.n, __ATOMIC_ACQUIRE);
		capacity += sizes[i];
	}
	parts = calloc(capacity, sizeof(*parts));
	for (i = 0; parts && i < n_shards; i++) {
		const struct lbl_shard *shard = lbl_tracker_shard(tracker, i);
		uint32_t index;

		for (index = 0; index < sizes[i]; index++)
			parts[n++] = part_of(shard, index);
	}
	free(sizes);
	*ret = parts;
	return n;
}

static bool has_metric(const struct lbl_tracker *tracker, enum lbl_metric metric)
{
	return metric < LBL_METRICS && lbl_shard_has(tracker->own, metric);
}

static int snapshot_all(struct lbl_tracker *tracker, enum lbl_metric metric, bool with_copies,
			struct lbl_snapshot **ret)
{
	struct part *parts = NULL;
	int err = -ENOMEM;
	size_t n, n_shards;

	if (!has_metric(tracker, metric))
		return -ENOENT;
	pthread_mutex_lock(&tracker->lock);
	n_shards = with_copies || !tracker->is_copy ? lbl_tracker_shards(tracker) : 1;
	n = gather(tracker, n_shards, &parts);
	if (n)
		err = make_snapshot(parts, n, metric, ret);
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

/* ---- one backend ---- */

static int find_part(const struct lbl_shard *shard, const struct lbl_key *key, struct part **parts,
		     size_t *n)
{
	uint32_t index = lbl_table_find(&shard->table, key);
	struct part *larger;

	if (!index)
		return 0;
	larger = reallocarray(*parts, *n + 1, sizeof(*larger));
	if (!larger)
		return -ENOMEM;
	*parts = larger;
	larger[(*n)++] = part_of(shard, index);
	return 0;
}

/* Several proxy ids may have the same name, each with a backend of its own. */
static int find_parts(struct lbl_shard *shard, const struct lbl_key *named, struct part **parts,
		      size_t *n)
{
	struct lbl_key key = *named;
	int err = 0;
	size_t i;

	pthread_mutex_lock(&shard->sink.lock);
	if (shard->by_name)
		err = find_part(shard, named, parts, n);
	for (i = 0; i < shard->n_proxies && !err; i++) {
		key.proxy_ref = shard->proxies[i].proxy;
		if (shard->proxies[i].name == named->proxy_ref)
			err = find_part(shard, &key, parts, n);
	}
	pthread_mutex_unlock(&shard->sink.lock);
	return err;
}

int lbl_tracker_snapshot_one(struct lbl_tracker *tracker, enum lbl_metric metric, uint16_t name,
			     const uint8_t *addr, uint16_t port, struct lbl_snapshot **ret)
{
	struct lbl_key key = { .port = port, .proxy_ref = name };
	struct part *parts = NULL;
	size_t n = 0, i;
	int err = 0;

	if (!has_metric(tracker, metric))
		return -ENOENT;
	memcpy(key.addr, addr, sizeof(key.addr));
	pthread_mutex_lock(&tracker->lock);
	for (i = 0; i < lbl_tracker_shards(tracker) && !err; i++)
		err = find_parts(lbl_tracker_shard(tracker, i), &key, &parts, &n);
	if (!err)
		err = make_snapshot(parts, n, metric, ret);
	pthread_mutex_unlock(&tracker->lock);
	free(parts);
	return err;
}
