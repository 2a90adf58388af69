// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "hist/read.h"
#include "track/backend.h"
#include "track/expiry.h"

/* `index` is valid while its key is the backend's: rows are used again, and arrays move. */
struct lbl_backend {
	struct lbl_tracker *tracker;
	enum lbl_metric metric;
	uint32_t index;
	struct lbl_key key;
};

/* ---- binding: the caller holds the own shard's lock ---- */

static bool is_bound(const struct lbl_backend *backend)
{
	const struct lbl_key *key = &backend->tracker->own->table.hot[backend->index].key;

	return likely(!memcmp(key, &backend->key, sizeof(*key)));
}

static bool is_limited(const struct lbl_tracker *tracker)
{
	return tracker->own->n_by_hand >= tracker->max_backends;
}

/* Find or add the backend; the overflow backend if there are too many or memory is exhausted. */
static void find_or_add(struct lbl_backend *backend)
{
	struct lbl_tracker *tracker = backend->tracker;
	struct lbl_shard *own = tracker->own;
	uint32_t index = lbl_table_find(&own->table, &backend->key);

	if (!index && !is_limited(tracker)) {
		index = lbl_shard_backend(own, &backend->key);
		own->table.cold[index].by_hand = index > 0;
		own->n_by_hand += index > 0;
	}
	backend->index = index;
}

/* Whether the tracker's lock is needed to bind: arrays must move, or a look may find room. */
static bool needs_tracker(const struct lbl_backend *backend)
{
	const struct lbl_tracker *tracker = backend->tracker;

	if (lbl_table_find(&tracker->own->table, &backend->key))
		return false;
	return is_limited(tracker) ? lbl_expiry_is_due(tracker)
				   : lbl_table_is_full(&tracker->own->table);
}

/* Readers hold the tracker's lock, so holding both lets arrays move. */
static void bind_with_room(struct lbl_backend *backend)
{
	struct lbl_tracker *tracker = backend->tracker;
	struct lbl_shard *own = tracker->own;

	pthread_mutex_unlock(&own->sink.lock);
	pthread_mutex_lock(&tracker->lock);
	lbl_expiry_catch_up(tracker);
	pthread_mutex_lock(&own->sink.lock);
	if (!is_limited(tracker))
		lbl_shard_make_room(own);
	find_or_add(backend);
	pthread_mutex_unlock(&tracker->lock);
}

static void lock_bound(struct lbl_backend *backend)
{
	pthread_mutex_lock(&backend->tracker->own->sink.lock);
	if (is_bound(backend))
		return;
	if (needs_tracker(backend))
		bind_with_room(backend);
	else
		find_or_add(backend);
}

int lbl_tracker_backend(struct lbl_tracker *tracker, enum lbl_metric metric, uint16_t name,
			const uint8_t *addr, uint16_t port, struct lbl_backend **ret)
{
	struct lbl_backend *backend;

	if (metric >= LBL_METRICS || !lbl_shard_has(tracker->own, metric))
		return -ENOENT;
	backend = malloc(sizeof(*backend));
	if (!backend)
		return -ENOMEM;
	*backend = (struct lbl_backend){ .tracker = tracker,
					 .metric = metric,
					 .key = { .port = port, .proxy_ref = name } };
	memcpy(backend->key.addr, addr, sizeof(backend->key.addr));
	if (!name)
		backend->key = lbl_overflow_key;
	lock_bound(backend);
	pthread_mutex_unlock(&tracker->own->sink.lock);
	*ret = backend;
	return 0;
}

void lbl_backend_free(struct lbl_backend *backend)
{
	free(backend);
}

/* ---- observing ---- */

/* Record one duration, release the lock. */
static int observe_locked(struct lbl_backend *backend, double seconds)
{
	struct lbl_shard *own = backend->tracker->own;
	size_t observed = lbl_shard_observe(own, backend->metric, backend->index, &seconds, 1);

	pthread_mutex_unlock(&own->sink.lock);
	return observed ? 0 : -ENOMEM;
}

int lbl_backend_observe(struct lbl_backend *backend, double seconds)
{
	if (unlikely(!lbl_is_duration(seconds)))
		return -EINVAL;
	lock_bound(backend);
	return observe_locked(backend, seconds);
}

int lbl_backend_try_observe(struct lbl_backend *backend, double seconds)
{
	struct lbl_shard *own = backend->tracker->own;

	if (unlikely(!lbl_is_duration(seconds)))
		return -EINVAL;
	if (pthread_mutex_trylock(&own->sink.lock))
		return -EBUSY;
	if (is_bound(backend))
		return observe_locked(backend, seconds);
	pthread_mutex_unlock(&own->sink.lock);
	return -EBUSY;
}

int lbl_durations_check(const double *seconds, size_t n, size_t *ret)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (unlikely(!lbl_is_duration(seconds[i]))) {
			*ret = i;
			return -EINVAL;
		}
	}
	return 0;
}

int lbl_backend_observe_many(struct lbl_backend *backend, const double *seconds, size_t n,
			     size_t *ret)
{
	struct lbl_shard *own = backend->tracker->own;
	size_t observed;

	if (lbl_durations_check(seconds, n, ret))
		return -EINVAL;
	lock_bound(backend);
	observed = lbl_shard_observe(own, backend->metric, backend->index, seconds, n);
	pthread_mutex_unlock(&own->sink.lock);
	return observed == n ? 0 : -ENOMEM;
}

/* ---- adding a histogram ---- */

static void fill_totals(struct lbl_totals *totals, size_t n, const uint16_t *slots,
			const uint64_t *counts, lbl_u128 sum)
{
	size_t i;

	for (i = 0; i < n; i++)
		totals->slots[slots[i]] = counts[i];
	totals->first = n ? slots[0] : 0;
	totals->end = n ? slots[n - 1] + 1U : 0;
	totals->sum = sum;
}

int lbl_backend_add(struct lbl_backend *backend, size_t n, const uint16_t *slots,
		    const uint64_t *counts, uint64_t sum_lo, uint64_t sum_hi)
{
	struct lbl_shard *own = backend->tracker->own;
	lbl_u128 sum = sum_lo | (lbl_u128)sum_hi << 64;
	struct lbl_totals *totals;
	uint64_t count;
	int err;

	err = lbl_hist_check(own->banks[backend->metric].buckets, n, slots, counts, &count);
	if (err)
		return err;
	if (sum > (lbl_u128)count * LBL_OBSERVE_MAX)
		return -EINVAL;
	totals = calloc(1, sizeof(*totals));
	if (!totals)
		return -ENOMEM;
	fill_totals(totals, n, slots, counts, sum);
	lock_bound(backend);
	err = lbl_shard_add(own, backend->metric, backend->index, totals, count);
	pthread_mutex_unlock(&own->sink.lock);
	free(totals);
	return err;
}
