/* SPDX-License-Identifier: MIT */
/*
 * The counters maps of a set of streams, and how many drops in them are the set's. Maps come and go
 * as rings are replaced. The caller excludes concurrent calls.
 */
#ifndef LBL_STREAM_MAPSET_H
#define LBL_STREAM_MAPSET_H

#include "stream/counted.h"

struct lbl_mapset_entry {
	struct lbl_counted *counters;
	size_t members; /* how many streams of the set use it; 0: it goes at the next settling */
	bool is_new; /* not settled yet */
	bool from_zero; /* all that it counted is the set's */
	struct lbl_counted_reading now;
	uint64_t dropped_before; /* its count that is not the set's */
};

struct lbl_mapset {
	struct lbl_mapset_entry *each;
	size_t n;
	uint64_t dropped_earlier; /* in maps that are gone */
};

/* Make an empty set for `n` streams. -ENOMEM. */
int lbl_mapset_init(struct lbl_mapset *set, size_t n);
/* Forget all maps. */
void lbl_mapset_clear(struct lbl_mapset *set);
/* Legal on a zeroed struct. */
void lbl_mapset_destroy(struct lbl_mapset *set);

/*
 * Say which maps the streams use now: begin, use for each stream that has a map, end. `from_zero`
 * matters if the map is new.
 */
void lbl_mapset_begin_use(struct lbl_mapset *set);
void lbl_mapset_use(struct lbl_mapset *set, struct lbl_counted *counters, bool from_zero);
void lbl_mapset_end_use(struct lbl_mapset *set);

/* Read all maps. `produced`: sum of those in use. Returns 0 or -errno. */
int lbl_mapset_read(struct lbl_mapset *set, uint64_t *produced);

/* The following tell of, or act on, what was read last. */

/* Return a number that changes when a map was found to have gone down. */
uint64_t lbl_mapset_restarts(const struct lbl_mapset *set);
/* Return whether a stream outside the set uses one of its maps. */
bool lbl_mapset_is_shared(const struct lbl_mapset *set);
/* Return the number of the set's events that were dropped. */
uint64_t lbl_mapset_dropped(const struct lbl_mapset *set);
/* Take up the maps that came, and the last counts of those that went. */
void lbl_mapset_settle(struct lbl_mapset *set);
/* Settle so that the set's events that were dropped are `dropped`. */
void lbl_mapset_settle_at(struct lbl_mapset *set, uint64_t dropped);

#endif
