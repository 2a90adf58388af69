// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "track/parts.h"

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct lbl_key));
}

size_t lbl_parts_end(const struct lbl_part *parts, size_t n, size_t first)
{
	size_t end = first;

	while (end < n && !compare(&parts[first], &parts[end]))
		end++;
	return end;
}

/* ---- all backends ---- */

/* The overflow backend has no name, and its key is 0 here. */
static size_t add_shard(struct lbl_shard *shard, uint32_t number, uint32_t n,
			struct lbl_part *parts)
{
	struct lbl_part *part = parts;
	uint32_t index;

	for (index = 0; index < n; index++) {
		uint16_t name = lbl_table_name(&shard->table, index);

		if (index && !name)
			continue;
		*part = (struct lbl_part){ .index = index, .shard_number = number, .shard = shard };
		if (index)
			part->key = lbl_shard_named(shard, index, name);
		part++;
	}
	return (size_t)(part - parts);
}

size_t lbl_parts_gather(struct lbl_tracker *tracker, size_t n_shards, struct lbl_part **ret)
{
	size_t capacity = 0, n = 0, i;
	struct lbl_part *parts = NULL;
	uint32_t *sizes = calloc(n_shards, sizeof(*sizes));

	for (i = 0; sizes && i < n_shards; i++) {
		struct lbl_shard *shard = lbl_tracker_shard(tracker, i);

		sizes[i] = __atomic_load_n(&shard->table.n, __ATOMIC_ACQUIRE);
		capacity += sizes[i];
	}
	if (sizes)
		parts = calloc(capacity, sizeof(*parts));
	for (i = 0; parts && i < n_shards; i++)
		n += add_shard(lbl_tracker_shard(tracker, i), (uint32_t)i, sizes[i], parts + n);
	free(sizes);
	if (n)
		qsort(parts, n, sizeof(*parts), compare);
	*ret = parts;
	return n;
}

/* ---- one backend ---- */

static int add_part(struct lbl_part **parts, size_t *n, const struct lbl_part *part)
{
	struct lbl_part *larger = reallocarray(*parts, *n + 1, sizeof(*larger));

	if (!larger)
		return -ENOMEM;
	*parts = larger;
	larger[(*n)++] = *part;
	return 0;
}

int lbl_parts_find(struct lbl_tracker *tracker, const struct lbl_key *named, struct lbl_part **ret,
		   size_t *ret_n)
{
	struct lbl_part part = { .key = *named };
	int err = 0;
	size_t i;

	*ret = NULL;
	*ret_n = 0;
	for (i = 0; i < lbl_tracker_shards(tracker) && !err; i++) {
		size_t at = 0;

		part.shard = lbl_tracker_shard(tracker, i);
		pthread_mutex_lock(&part.shard->sink.lock);
		while (!err && (part.index = lbl_shard_next_named(part.shard, named, &at)))
			err = add_part(ret, ret_n, &part);
		pthread_mutex_unlock(&part.shard->sink.lock);
	}
	return err;
}
