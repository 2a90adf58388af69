// SPDX-License-Identifier: MIT
/* Recording by hand. */
#include <stdlib.h>

#include "track/backend.h"

struct lbl_backend {
	struct lbl_shard *shard;
	uint32_t index;
};

int lbl_tracker_backend(struct lbl_tracker *tracker, uint16_t name, const uint8_t *addr,
			uint16_t port, struct lbl_backend **ret)
{
	struct lbl_key key = { .port = port, .proxy = name };
	struct lbl_backend *backend = malloc(sizeof(*backend));

	if (!backend)
		return -ENOMEM;
	memcpy(key.addr, addr, sizeof(key.addr));
	backend->shard = tracker->own;
	pthread_mutex_lock(&tracker->own->lock);
	backend->index = lbl_shard_backend(tracker->own, &key);
	pthread_mutex_unlock(&tracker->own->lock);
	*ret = backend;
	return 0;
}

void lbl_backend_free(struct lbl_backend *backend)
{
	free(backend);
}

static int observe_one(struct lbl_backend *backend, double seconds, int (*lock)(pthread_mutex_t *))
{
	size_t observed;

	if (unlikely(!lbl_is_duration(seconds)))
		return -EINVAL;
	if (lock(&backend->shard->lock))
		return -EBUSY;
	observed = lbl_shard_observe(backend->shard, backend->index, &seconds, 1);
	pthread_mutex_unlock(&backend->shard->lock);
	return observed ? 0 : -ENOMEM;
}

int lbl_backend_observe(struct lbl_backend *backend, double seconds)
{
	return observe_one(backend, seconds, pthread_mutex_lock);
}

int lbl_backend_try_observe(struct lbl_backend *backend, double seconds)
{
	return observe_one(backend, seconds, pthread_mutex_trylock);
}

int lbl_backend_observe_many(struct lbl_backend *backend, const double *seconds, size_t n,
			     size_t *ret)
{
	size_t observed, i;

	for (i = 0; i < n; i++) {
		if (unlikely(!lbl_is_duration(seconds[i]))) {
			*ret = i;
			return -EINVAL;
		}
	}
	pthread_mutex_lock(&backend->shard->lock);
	observed = lbl_shard_observe(backend->shard, backend->index, seconds, n);
	pthread_mutex_unlock(&backend->shard->lock);
	return observed == n ? 0 : -ENOMEM;
}
