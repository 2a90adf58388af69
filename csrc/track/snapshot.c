// SPDX-License-Identifier: MIT
/* All backends of a tracker at one time, merged over its shards. */
#include <stdlib.h>

#include "track/snapshot.h"

/* One shard's part of a backend; parts of the same backend have equal keys. */
struct part {
	struct lbl_key key; /* with the proxy's name for its id, so that shards agree */
	uint32_t index;
	const struct lbl_table *table;
};

static int compare_parts(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct lbl_key));
}

static struct part part_of(const struct lbl_table *table, uint32_t index)
{
	struct part part = { .table = table, .index = index };

	if (index) {
		part.key = table->hot[index].key;
		part.key.proxy = table->cold[index].name;
	}
	return part;
}

/* ---- rows ---- */

static int reserve_pairs(struct lbl_snapshot *snapshot, size_t *capacity, size_t more)
{
	size_t n = snapshot->n_pairs + more, larger = *capacity ? *capacity : 1024;
	uint16_t *slots;
	uint64_t *counts;

	if (n <= *capacity)
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
	*capacity = larger;
	return 0;
}

static int add_row(struct lbl_snapshot *snapshot, size_t *capacity, const struct lbl_key *key,
		   const struct lbl_totals *totals)
{
	struct lbl_backend_snapshot *row = &snapshot->rows[snapshot->n_rows];
	uint32_t i;

	if (totals->end > totals->first &&
	    reserve_pairs(snapshot, capacity, totals->end - totals->first))
		return -ENOMEM;
	*row = (struct lbl_backend_snapshot){ .name = key->proxy,
					      .port = key->port,
					      .sum_lo = (uint64_t)totals->sum,
					      .sum_hi = (uint64_t)(totals->sum >> 64),
					      .opened = totals->opened,
					      .open = totals->open > 0 ? (uint64_t)totals->open : 0,
					      .probes = totals->probes,
					      .first = snapshot->n_pairs };
	memcpy(row->addr, key->addr, sizeof(row->addr));
	memcpy(row->closed, totals->closed, sizeof(row->closed));
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

/* Merge neighbours with equal keys into rows. */
static int add_rows(struct lbl_snapshot *snapshot, const struct part *parts, size_t n)
{
	struct lbl_totals *totals = calloc(1, sizeof(*totals));
	size_t capacity = 0, i = 0;
	int err = totals ? 0 : -ENOMEM;

	while (i < n && !err) {
		size_t first = i;

		lbl_totals_clear(totals);
		for (; i < n && !compare_parts(&parts[first], &parts[i]); i++)
			lbl_table_read(parts[i].table, parts[i].index, totals);
		err = add_row(snapshot, &capacity, &parts[first].key, totals);
	}
	free(totals);
	return err;
}

static int make_snapshot(struct part *parts, size_t n, struct lbl_snapshot **ret)
{
	struct lbl_snapshot *snapshot = calloc(1, sizeof(*snapshot));
	int err = -ENOMEM;

	if (!snapshot)
		return -ENOMEM;
	if (n)
		qsort(parts, n, sizeof(*parts), compare_parts);
	snapshot->rows = calloc(n + 1, sizeof(*snapshot->rows));
	if (snapshot->rows)
		err = add_rows(snapshot, parts, n);
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

/* ---- of all backends ---- */

static size_t gather(struct lbl_tracker *tracker, struct part **ret)
{
	size_t capacity = 0, n = 0, i;
	struct part *parts;
	uint32_t *sizes;

	sizes = calloc(lbl_tracker_shards(tracker), sizeof(*sizes));
	if (!sizes)
		return 0;
	for (i = 0; i < lbl_tracker_shards(tracker); i++) {
		struct lbl_shard *shard = lbl_tracker_shard(tracker, i);

		sizes[i] = __atomic_load_n(&shard->table.n, __ATOMIC_ACQUIRE);
		capacity += sizes[i];
	}
	parts = calloc(capacity, sizeof(*parts));
	for (i = 0; parts && i < lbl_tracker_shards(tracker); i++) {
		const struct lbl_table *table = &lbl_tracker_shard(tracker, i)->table;
		uint32_t index;

		for (index = 0; index < sizes[i]; index++)
			parts[n++] = part_of(table, index);
	}
	free(sizes);
	*ret = parts;
	return n;
}

int lbl_tracker_snapshot(struct lbl_tracker *tracker, struct lbl_snapshot **ret)
{
	struct part *parts = NULL;
	int err = -ENOMEM;
	size_t n;

	pthread_mutex_lock(&tracker->lock);
	n = gather(tracker, &parts);
	if (n)
		err = make_snapshot(parts, n, ret);
	pthread_mutex_unlock(&tracker->lock);
	free(parts);
	return err;
}

/* ---- of one backend ---- */

static size_t find_part(const struct lbl_shard *shard, const struct lbl_key *key,
			struct part **parts, size_t n)
{
	uint32_t index = lbl_table_find(&shard->table, key);
	struct part *larger;

	larger = index ? reallocarray(*parts, n + 1, sizeof(*larger)) : NULL;
	if (!larger)
		return n;
	*parts = larger;
	larger[n] = part_of(&shard->table, index);
	return n + 1;
}

/* Each proxy id that goes by the name may have led to a backend of its own. */
static size_t find_parts(struct lbl_shard *shard, const struct lbl_key *named, struct part **parts,
			 size_t n)
{
	struct lbl_key key = *named;
	size_t i;

	pthread_mutex_lock(&shard->lock);
	if (shard->by_name)
		n = find_part(shard, named, parts, n);
	for (i = 0; i < shard->n_proxies; i++) {
		key.proxy = shard->proxies[i].proxy;
		if (shard->proxies[i].name == named->proxy)
			n = find_part(shard, &key, parts, n);
	}
	pthread_mutex_unlock(&shard->lock);
	return n;
}

int lbl_tracker_snapshot_one(struct lbl_tracker *tracker, uint16_t name, const uint8_t *addr,
			     uint16_t port, struct lbl_snapshot **ret)
{
	struct lbl_key key = { .port = port, .proxy = name };
	struct part *parts = NULL;
	size_t n = 0, i;
	int err;

	memcpy(key.addr, addr, sizeof(key.addr));
	pthread_mutex_lock(&tracker->lock);
	for (i = 0; i < lbl_tracker_shards(tracker); i++)
		n = find_parts(lbl_tracker_shard(tracker, i), &key, &parts, n);
	err = make_snapshot(parts, n, ret);
	pthread_mutex_unlock(&tracker->lock);
	free(parts);
	return err;
}
