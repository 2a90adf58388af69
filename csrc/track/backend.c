// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "track/backend.h"
#include "track/state.h"

struct lbl_backend {
	struct lbl_shard *shard;
	enum lbl_metric metric;
	uint32_t index;
};

int lbl_tracker_backend(struct lbl_tracker *tracker, enum lbl_metric metric, uint16_t name,
			const uint8_t *addr, uint16_t port, struct lbl_backend **ret)
{
	struct lbl_key key = { .port = port, .proxy_ref = name };
	struct lbl_shard *own = tracker->own;
	struct lbl_backend *backend;

	if (metric >= LBL_METRICS || !lbl_shard_has(own, metric))
		return -ENOENT;
	backend = malloc(sizeof(*backend));
	if (!backend)
		return -ENOMEM;
	memcpy(key.addr, addr, sizeof(key.addr));
	pthread_mutex_lock(&own->sink.lock);
	*backend = (struct lbl_backend){ own, metric, lbl_shard_backend(own, &key) };
	pthread_mutex_unlock(&own->sink.lock);
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
	if (lock(&backend->shard->sink.lock))
		return -EBUSY;
	observed = lbl_shard_observe(backend->shard, backend->metric, backend->index, &seconds, 1);
	pthread_mutex_unlock(&backend->shard->sink.lock);
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
	pthread_mutex_lock(&backend->shard->sink.lock);
	observed = lbl_shard_observe(backend->shard, backend->metric, backend->index, seconds, n);
	pthread_mutex_unlock(&backend->shard->sink.lock);
	return observed == n ? 0 : -ENOMEM;
}
