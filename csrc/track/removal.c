// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "track/open.h"
#include "track/removal.h"

/* Number of backends looked at or freed per lock: in between, the drains continue. */
enum { BACKENDS_PER_LOCK = 64 };

/* In the order of creation, as streams lock them. */
static void lock_all(struct lbl_tracker *tracker)
{
	size_t i;

	for (i = 0; i < lbl_tracker_shards(tracker); i++)
		pthread_mutex_lock(&lbl_tracker_shard(tracker, i)->sink.lock);
}

static void unlock_all(struct lbl_tracker *tracker)
{
	size_t i;

	for (i = 0; i < lbl_tracker_shards(tracker); i++)
		pthread_mutex_unlock(&lbl_tracker_shard(tracker, i)->sink.lock);
}

/* Unlink those of the next backends that may go. Returns where the rest begins. */
static size_t unlink_some(struct lbl_tracker *tracker, const struct lbl_part *parts, size_t n,
			  size_t first, lbl_may_go *may_go, void *ctx, size_t *removed)
{
	size_t i = first, end;
	uint32_t left;

	for (left = BACKENDS_PER_LOCK; left && i < n; left--) {
		end = lbl_parts_end(parts, n, i);
		if (!parts[i].key.proxy_ref || !may_go(ctx, &parts[i], end - i)) {
			i = end;
			continue;
		}
		lbl_open_forget(tracker, &parts[i], end - i);
		for (; i < end; i++)
			lbl_shard_unlink(parts[i].shard, parts[i].index);
		(*removed)++;
	}
	return i;
}

static void forget_ids(struct lbl_shard *shard)
{
	uint32_t at = 0;

	do {
		pthread_mutex_lock(&shard->sink.lock);
		at = lbl_table_forget_ids(&shard->table, at);
		pthread_mutex_unlock(&shard->sink.lock);
	} while (at);
}

static void free_unlinked(struct lbl_tracker *tracker, struct lbl_shard *shard)
{
	bool more;

	do {
		uint32_t left = BACKENDS_PER_LOCK;

		pthread_mutex_lock(&shard->sink.lock);
		do
			more = lbl_shard_free_one(shard, tracker->removed, tracker->scratch);
		while (more && --left);
		pthread_mutex_unlock(&shard->sink.lock);
	} while (more);
}

size_t lbl_remove_parts(struct lbl_tracker *tracker, const struct lbl_part *parts, size_t n,
			lbl_may_go *may_go, void *ctx)
{
	size_t removed = 0, i = 0;

	while (i < n) {
		lock_all(tracker);
		i = unlink_some(tracker, parts, n, i, may_go, ctx, &removed);
		unlock_all(tracker);
	}
	tracker->cleared += removed;
	for (i = 0; removed && i < lbl_tracker_shards(tracker); i++) {
		struct lbl_shard *shard = lbl_tracker_shard(tracker, i);

		if (shard->table.unlinked) {
			forget_ids(shard);
			free_unlinked(tracker, shard);
		}
	}
	return removed;
}

/* ---- one backend ---- */

static bool always(void *ctx, const struct lbl_part *parts, size_t n)
{
	(void)ctx, (void)parts, (void)n;
	return true;
}

int lbl_tracker_remove(struct lbl_tracker *tracker, uint16_t name, const uint8_t *addr,
		       uint16_t port)
{
	struct lbl_key key = { .port = port, .proxy_ref = name };
	struct lbl_part *parts;
	size_t n;
	int rc;

	memcpy(key.addr, addr, sizeof(key.addr));
	pthread_mutex_lock(&tracker->lock);
	rc = lbl_parts_find(tracker, &key, &parts, &n);
	if (!rc)
		rc = (int)lbl_remove_parts(tracker, parts, n, always, NULL);
	pthread_mutex_unlock(&tracker->lock);
	free(parts);
	return rc;
}
