// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "track/expiry.h"
#include "track/parts.h"
#include "track/snapshot.h"

/* ---- rows ---- */

/* What to read, and who is shown each row; without a visitor, the rows are kept. */
struct reading {
	uint32_t metrics; /* a bit per enum lbl_metric */
	const struct lbl_visitor *visitor;
	void *context;
	uint64_t cleared; /* of the tracker */
};

/* The state of building a snapshot. It has all rows, or the one that is to be visited. */
struct builder {
	struct reading reading;
	struct lbl_snapshot *snapshot;
	size_t capacity; /* in pairs */
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

/* Write what a row has besides its histogram. */
static void fill_head(const struct builder *builder, const struct lbl_key *key,
		      struct lbl_backend_snapshot *row)
{
	const struct lbl_tallies *tallies = &builder->tallies;

	*row = (struct lbl_backend_snapshot){
		.name = key->proxy_ref,
		.port = key->port,
		.opened = tallies->opened + at_least_0(tallies->open_before),
		.open = at_least_0(tallies->open),
		.probes = tallies->probes,
		.rank = builder->rank,
		.first = builder->snapshot->n_pairs,
	};
	memcpy(row->addr, key->addr, sizeof(row->addr));
	memcpy(row->closed, tallies->closed, sizeof(row->closed));
}

static int add_row(struct builder *builder, const struct lbl_key *key)
{
	const struct lbl_totals *totals = &builder->totals;
	struct lbl_snapshot *snapshot = builder->snapshot;
	struct lbl_backend_snapshot *row = &snapshot->rows[snapshot->n_rows];
	size_t n = snapshot->n_pairs;
	uint32_t i;

	if (totals->end > totals->first && reserve_pairs(builder, totals->end - totals->first))
		return -ENOMEM;
	fill_head(builder, key, row);
	row->sum_lo = (uint64_t)totals->sum;
	row->sum_hi = (uint64_t)(totals->sum >> 64);
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
static uint64_t rank_of(const struct lbl_part *parts, size_t n)
{
	uint64_t rank = UINT64_MAX, each;
	size_t i;

	for (i = 0; i < n; i++) {
		each = (uint64_t)parts[i].index << 32 | parts[i].shard_number;
		if (rank > each)
			rank = each;
	}
	return rank;
}

/* The visitor sees the one row that there is. */
static int visit_row(struct builder *builder, enum lbl_metric metric)
{
	const struct reading *reading = &builder->reading;
	struct lbl_snapshot *snapshot = builder->snapshot;

	snapshot->n_rows = 0;
	snapshot->n_pairs = 0;
	return reading->visitor->row(reading->context, metric, snapshot->rows, snapshot->slots,
				     snapshot->counts);
}

static bool begin_visit(struct builder *builder, const struct lbl_part *parts, size_t n)
{
	const struct reading *reading = &builder->reading;
	uint64_t activity = 0;
	size_t i;

	for (i = 0; i < n; i++)
		activity += lbl_shard_activity(parts[i].shard, parts[i].index, &builder->totals);
	fill_head(builder, &parts[0].key, builder->snapshot->rows);
	return reading->visitor->begin(reading->context, builder->snapshot->rows, activity,
				       reading->cleared);
}

/* Merge a backend's parts into a row per latency. */
static int add_backend(struct builder *builder, const struct lbl_part *parts, size_t n)
{
	enum lbl_metric metric;
	int err = 0;
	size_t i;

	builder->tallies = (struct lbl_tallies){ 0 };
	builder->rank = rank_of(parts, n);
	for (i = 0; i < n; i++)
		lbl_shard_tallies(parts[i].shard, parts[i].index, &builder->tallies);
	if (builder->reading.visitor && !begin_visit(builder, parts, n))
		return 0;
	for (metric = 0; metric < LBL_METRICS && !err; metric++) {
		if (!(builder->reading.metrics >> metric & 1))
			continue;
		lbl_totals_clear(&builder->totals);
		for (i = 0; i < n; i++)
			lbl_bank_read(&parts[i].shard->banks[metric], parts[i].index,
				      &builder->totals);
		err = add_row(builder, &parts[0].key);
		if (!err && builder->reading.visitor)
			err = visit_row(builder, metric);
	}
	return err;
}

static int add_backends(struct builder *builder, const struct lbl_part *parts, size_t n)
{
	size_t first = 0, end;
	int err = 0;

	for (; first < n && !err; first = end) {
		end = lbl_parts_end(parts, n, first);
		err = add_backend(builder, &parts[first], end - first);
	}
	return err;
}

/* A row without a name, like the overflow backend's; the port tells them apart. */
static int add_removed(struct builder *builder, struct lbl_shard *removed)
{
	const struct lbl_part part = { .key.port = LBL_REMOVED, .shard = removed };

	if (!lbl_shard_activity(removed, 0, &builder->totals))
		return 0;
	return add_backend(builder, &part, 1);
}

/* `removed` is NULL if the snapshot is of one backend. If rows are visited, it remains empty. */
static int build(const struct reading *reading, const struct lbl_part *parts, size_t n,
		 struct lbl_shard *removed, struct lbl_snapshot **ret)
{
	struct lbl_snapshot *snapshot = calloc(1, sizeof(*snapshot));
	struct builder *builder = calloc(1, sizeof(*builder));
	int err = -ENOMEM;

	if (snapshot)
		snapshot->rows = calloc(reading->visitor ? 1 : n + 1, sizeof(*snapshot->rows));
	if (builder && snapshot && snapshot->rows) {
		builder->reading = *reading;
		builder->snapshot = snapshot;
		err = add_backends(builder, parts, n);
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

static int snapshot_all(struct lbl_tracker *tracker, struct reading *reading, bool with_copies,
			struct lbl_snapshot **ret)
{
	struct lbl_part *parts = NULL;
	int err = -ENOMEM;
	size_t n, n_shards;

	pthread_mutex_lock(&tracker->lock);
	lbl_expiry_catch_up(tracker);
	reading->cleared = tracker->cleared;
	n_shards = with_copies || !tracker->is_copy ? lbl_tracker_shards(tracker) : 1;
	n = lbl_parts_gather(tracker, n_shards, &parts);
	if (n)
		err = build(reading, parts, n, tracker->removed, ret);
	pthread_mutex_unlock(&tracker->lock);
	free(parts);
	return err;
}

int lbl_tracker_snapshot(struct lbl_tracker *tracker, enum lbl_metric metric,
			 struct lbl_snapshot **ret)
{
	if (!has_metric(tracker, metric))
		return -ENOENT;
	return snapshot_all(tracker, &(struct reading){ .metrics = 1U << metric }, true, ret);
}

int lbl_tracker_snapshot_own(struct lbl_tracker *tracker, enum lbl_metric metric,
			     struct lbl_snapshot **ret)
{
	if (!has_metric(tracker, metric))
		return -ENOENT;
	return snapshot_all(tracker, &(struct reading){ .metrics = 1U << metric }, false, ret);
}

int lbl_tracker_visit(struct lbl_tracker *tracker, const struct lbl_visitor *visitor, void *context)
{
	struct reading reading = { .visitor = visitor, .context = context };
	struct lbl_snapshot *empty = NULL;
	enum lbl_metric metric;
	int err;

	for (metric = 0; metric < LBL_METRICS; metric++)
		if (has_metric(tracker, metric))
			reading.metrics |= 1U << metric;
	err = snapshot_all(tracker, &reading, true, &empty);
	lbl_snapshot_free(empty);
	return err;
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
		err = build(&(struct reading){ .metrics = 1U << metric }, parts, n, NULL, ret);
	pthread_mutex_unlock(&tracker->lock);
	free(parts);
	return err;
}
