// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "stream/mapset.h"

/* One that went, one that came and went before it was settled, and one that came. */
enum { MAPS_PER_STREAM = 3 };

int lbl_mapset_init(struct lbl_mapset *set, size_t n)
{
	*set = (struct lbl_mapset){ .each = calloc(MAPS_PER_STREAM * n + 1, sizeof(*set->each)) };
	return set->each ? 0 : -ENOMEM;
}

void lbl_mapset_clear(struct lbl_mapset *set)
{
	size_t i;

	for (i = 0; i < set->n; i++)
		lbl_counted_unref(set->each[i].counters);
	set->n = 0;
	set->dropped_earlier = 0;
}

void lbl_mapset_destroy(struct lbl_mapset *set)
{
	lbl_mapset_clear(set);
	free(set->each);
}

/* ---- which maps there are ---- */

void lbl_mapset_begin_use(struct lbl_mapset *set)
{
	size_t i;

	for (i = 0; i < set->n; i++)
		set->each[i].members = 0;
}

void lbl_mapset_use(struct lbl_mapset *set, struct lbl_counted *counters, bool from_zero)
{
	struct lbl_mapset_entry *map = set->each;

	while (map < set->each + set->n && map->counters != counters)
		map++;
	if (map == set->each + set->n) {
		set->n++;
		*map = (struct lbl_mapset_entry){ .counters = lbl_counted_ref(counters),
						  .is_new = true };
	}
	map->members++;
	map->from_zero |= from_zero;
}

/* Maps that went stay until their last counts are taken up; those that were never settled, not. */
void lbl_mapset_end_use(struct lbl_mapset *set)
{
	size_t i, kept = 0;

	for (i = 0; i < set->n; i++) {
		if (set->each[i].is_new && !set->each[i].members)
			lbl_counted_unref(set->each[i].counters);
		else
			set->each[kept++] = set->each[i];
	}
	set->n = kept;
}

/* ---- what they tell ---- */

int lbl_mapset_read(struct lbl_mapset *set, uint64_t *produced)
{
	int err = 0;
	size_t i;

	*produced = 0;
	for (i = 0; i < set->n && !err; i++) {
		struct lbl_mapset_entry *map = &set->each[i];

		err = lbl_counted_read(map->counters, &map->now);
		if (map->members)
			*produced += map->now.sums.produced;
	}
	return err;
}

uint64_t lbl_mapset_restarts(const struct lbl_mapset *set)
{
	uint64_t restarts = 0;
	size_t i;

	for (i = 0; i < set->n; i++)
		restarts += set->each[i].now.restarts;
	return restarts;
}

bool lbl_mapset_is_shared(const struct lbl_mapset *set)
{
	size_t i;

	for (i = 0; i < set->n; i++) {
		if (set->each[i].members && set->each[i].now.users > set->each[i].members)
			return true;
	}
	return false;
}

static uint64_t before(const struct lbl_mapset_entry *map)
{
	if (!map->is_new)
		return map->dropped_before;
	return map->from_zero ? 0 : map->now.sums.dropped;
}

uint64_t lbl_mapset_dropped(const struct lbl_mapset *set)
{
	uint64_t dropped = set->dropped_earlier;
	size_t i;

	for (i = 0; i < set->n; i++)
		dropped += set->each[i].now.sums.dropped - before(&set->each[i]);
	return dropped;
}

void lbl_mapset_settle(struct lbl_mapset *set)
{
	size_t i, kept = 0;

	for (i = 0; i < set->n; i++) {
		struct lbl_mapset_entry map = set->each[i];

		map.dropped_before = before(&map);
		map.is_new = false;
		if (map.members) {
			set->each[kept++] = map;
			continue;
		}
		set->dropped_earlier += map.now.sums.dropped - map.dropped_before;
		lbl_counted_unref(map.counters);
	}
	set->n = kept;
}

void lbl_mapset_settle_at(struct lbl_mapset *set, uint64_t dropped)
{
	size_t i;

	lbl_mapset_settle(set);
	for (i = 0; i < set->n; i++)
		set->each[i].dropped_before = set->each[i].now.sums.dropped;
	set->dropped_earlier = dropped;
}
