// SPDX-License-Identifier: MIT
/* A tracker: one shard a stream, and one for what is recorded by hand and what streams left. */
#include <stdlib.h>

#include "track/tracker.h"

/* ---- creation ---- */

static void handle_fork(struct lbl_fork_entry *entry, enum lbl_fork_phase phase)
{
	struct lbl_tracker *tracker = (struct lbl_tracker *)entry;

	if (phase == LBL_FORK_PREPARE) {
		pthread_mutex_lock(&tracker->lock);
		pthread_mutex_lock(&tracker->own->lock);
		return;
	}
	pthread_mutex_unlock(&tracker->own->lock);
	pthread_mutex_unlock(&tracker->lock);
}

int lbl_tracker_new(struct lbl_buckets *buckets, uint32_t max_backends, struct lbl_tracker **ret)
{
	struct lbl_tracker *tracker;
	int err = -ENOMEM;

	if (!max_backends || max_backends > LBL_BACKENDS_MAX)
		return -EINVAL;
	tracker = calloc(1, sizeof(*tracker));
	if (!tracker)
		return -ENOMEM;
	lbl_ref(&buckets->refs);
	tracker->buckets = buckets;
	tracker->max_backends = max_backends;
	tracker->names = lbl_intern_new();
	tracker->totals = calloc(1, sizeof(*tracker->totals));
	if (tracker->names && tracker->totals)
		err = lbl_shard_new(buckets, 2 * max_backends, tracker->names, &tracker->own);
	if (err) {
		lbl_buckets_free(buckets);
		lbl_intern_free(tracker->names);
		free(tracker->totals);
		free(tracker);
		return err;
	}
	tracker->own->by_name = true;
	tracker->own->limit = max_backends;
	pthread_mutex_init(&tracker->lock, NULL);
	tracker->fork.handle = handle_fork;
	lbl_fork_register(&tracker->fork);
	*ret = tracker;
	return 0;
}

void lbl_tracker_free(struct lbl_tracker *tracker)
{
	if (!tracker)
		return;
	lbl_tracker_detach(tracker);
	lbl_fork_unregister(&tracker->fork);
	lbl_shard_free(tracker->own);
	lbl_intern_free(tracker->names);
	lbl_buckets_free(tracker->buckets);
	free(tracker->totals);
	pthread_mutex_destroy(&tracker->lock);
	free(tracker);
}

int lbl_tracker_name(struct lbl_tracker *tracker, const char *name, size_t len)
{
	return lbl_intern_insert(tracker->names, name, len);
}

int lbl_tracker_find_name(struct lbl_tracker *tracker, const char *name, size_t len)
{
	return lbl_intern_find(tracker->names, name, len);
}

const char *lbl_tracker_name_text(struct lbl_tracker *tracker, uint16_t name, size_t *len)
{
	return lbl_intern_text(tracker->names, name, len);
}

/* ---- attaching ---- */

static int set_proxies(struct lbl_shard *shard, const struct lbl_proxy *proxies, size_t n)
{
	size_t i;

	shard->proxies = calloc(n + 1, sizeof(*shard->proxies));
	shard->vips = calloc(n + 1, sizeof(*shard->vips));
	if (!shard->proxies || !shard->vips)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		struct lbl_vip *vip = &shard->vips[shard->n_vips];

		shard->proxies[shard->n_proxies++] =
			(struct lbl_proxy_name){ proxies[i].id, proxies[i].name };
		if (!proxies[i].has_vip)
			continue;
		memcpy(vip->addr, proxies[i].vip_addr, sizeof(vip->addr));
		vip->port = proxies[i].vip_port;
		vip->proxy = proxies[i].id;
		shard->n_vips++;
	}
	return 0;
}

static int attach(struct lbl_tracker *tracker, struct lbl_stream *stream, struct lbl_shard *shard)
{
	struct lbl_attachment *larger;
	size_t i;
	int err;

	for (i = 0; i < tracker->n_attached; i++) {
		if (tracker->attached[i].stream == stream)
			return -EBUSY;
	}
	larger = reallocarray(tracker->attached, tracker->n_attached + 1, sizeof(*larger));
	if (!larger)
		return -ENOMEM;
	tracker->attached = larger;
	err = lbl_stream_attach(stream, shard);
	if (!err)
		tracker->attached[tracker->n_attached++] = (struct lbl_attachment){ stream, shard };
	return err;
}

int lbl_tracker_attach(struct lbl_tracker *tracker, struct lbl_stream *stream,
		       struct lbl_conntrack *conntrack, const struct lbl_proxy *proxies, size_t n)
{
	struct lbl_shard *shard;
	int err;

	err = lbl_shard_new(tracker->buckets, tracker->max_backends, tracker->names, &shard);
	if (err)
		return err;
	shard->table.sees_opens = true;
	shard->conntrack = lbl_conntrack_ref(conntrack);
	err = set_proxies(shard, proxies, n);
	if (!err) {
		pthread_mutex_lock(&tracker->lock);
		err = attach(tracker, stream, shard);
		pthread_mutex_unlock(&tracker->lock);
	}
	if (err)
		lbl_shard_free(shard);
	return err;
}

/* Returns how many observations had to be given up for lack of memory. */
static uint64_t merge_backend(struct lbl_shard *into, const struct lbl_table *from, uint32_t index,
			      struct lbl_totals *totals)
{
	struct lbl_table *table = &into->table;
	struct lbl_key key = from->hot[index].key;
	uint64_t lost = 0;
	uint32_t to = 0, i;

	lbl_totals_clear(totals);
	lbl_table_read(from, index, totals);
	if (index) {
		key.proxy = from->cold[index].name;
		to = lbl_shard_backend(into, &key);
	}
	for (i = totals->first; i < totals->end; i++) {
		if (totals->slots[i] && lbl_table_count(table, to, i, totals->slots[i]))
			lost += totals->slots[i];
	}
	lbl_table_add_sum(table, to, totals->sum);
	for (i = 0; i < LBL_REASONS; i++)
		lbl_table_add_closed(table, to, i, totals->closed[i]);
	lbl_table_add_count(table, to, LBL_HOT_OPENED, totals->opened);
	lbl_owner_add(&table->cold[to].probes, totals->probes);
	return lost;
}

static void add_stats(struct lbl_tracker_stats *to, const struct lbl_tracker_stats *from)
{
	const uint64_t *value = (const uint64_t *)from;
	uint64_t *sum = (uint64_t *)to;
	size_t i;

	for (i = 0; i < sizeof(*to) / sizeof(*sum); i++)
		lbl_owner_add(&sum[i], READ_ONCE(&value[i]));
}

/*
 * What a stream's shard has counted goes on to count in the tracker's own, which has room for it
 * beside what is recorded by hand.
 */
static void merge(struct lbl_tracker *tracker, struct lbl_shard *shard)
{
	uint64_t lost = 0;
	uint32_t i;

	pthread_mutex_lock(&tracker->own->lock);
	tracker->own->limit = tracker->own->table.max;
	for (i = 0; i < shard->table.n; i++)
		lost += merge_backend(tracker->own, &shard->table, i, tracker->totals);
	tracker->own->limit = tracker->max_backends;
	add_stats(&tracker->own->stats, &shard->stats);
	lbl_owner_add(&tracker->own->stats.recorded, -lost);
	lbl_owner_add(&tracker->own->stats.rejected, lost);
	pthread_mutex_unlock(&tracker->own->lock);
}

void lbl_tracker_detach(struct lbl_tracker *tracker)
{
	struct lbl_attachment *attached;
	size_t n, i;

	pthread_mutex_lock(&tracker->lock);
	attached = tracker->attached;
	n = tracker->n_attached;
	for (i = 0; i < n; i++) {
		lbl_stream_detach(attached[i].stream, attached[i].shard);
		merge(tracker, attached[i].shard);
	}
	tracker->attached = NULL;
	tracker->n_attached = 0;
	pthread_mutex_unlock(&tracker->lock);
	for (i = 0; i < n; i++) {
		lbl_shard_free(attached[i].shard);
		lbl_stream_free(attached[i].stream);
	}
	free(attached);
}

/* ---- the whole ---- */

void lbl_tracker_stats(struct lbl_tracker *tracker, struct lbl_tracker_stats *ret)
{
	size_t i;

	memset(ret, 0, sizeof(*ret));
	pthread_mutex_lock(&tracker->lock);
	for (i = 0; i < lbl_tracker_shards(tracker); i++) {
		struct lbl_shard *shard = lbl_tracker_shard(tracker, i);

		/* Between two batches, lest an event be counted as closed but not yet as what. */
		pthread_mutex_lock(&shard->lock);
		add_stats(ret, &shard->stats);
		pthread_mutex_unlock(&shard->lock);
	}
	pthread_mutex_unlock(&tracker->lock);
}

/* Backends between which the owner may go on, so that a reset is no pause. */
enum { CLEARED_AT_ONCE = 256 };

static void reset_shard(struct lbl_shard *shard)
{
	uint32_t i;

	pthread_mutex_lock(&shard->lock);
	for (i = 0; i < shard->table.n; i++) {
		lbl_table_clear(&shard->table, i);
		if (i % CLEARED_AT_ONCE == 0) {
			pthread_mutex_unlock(&shard->lock);
			pthread_mutex_lock(&shard->lock);
		}
	}
	pthread_mutex_unlock(&shard->lock);
}

void lbl_tracker_reset(struct lbl_tracker *tracker)
{
	size_t i;

	pthread_mutex_lock(&tracker->lock);
	for (i = 0; i < lbl_tracker_shards(tracker); i++)
		reset_shard(lbl_tracker_shard(tracker, i));
	pthread_mutex_unlock(&tracker->lock);
}
