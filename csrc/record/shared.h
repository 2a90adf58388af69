/* SPDX-License-Identifier: MIT */
/*
 * What the shards of a tracker's streams have in common: a connection may open in one ring and close
 * in another.
 */
#ifndef LBL_RECORD_SHARED_H
#define LBL_RECORD_SHARED_H

#include <pthread.h>

#include "base/util.h"
#include "record/births.h"

/*
 * The horizon is a time of the events' own clock. A connection that began before it does not count
 * as open: nobody may have seen it open. Since its opened and its closed event are told apart by the
 * same time, they agree whatever the horizon is. Until there is one, nothing is known to be open, and
 * what closes is passed: its opened event may still wait in another ring, so the horizon that comes
 * is not before its end.
 */
#define LBL_HORIZON_UNSET (1ULL << 63) /* the next opened event sets it */
#define LBL_HORIZON_ENDLESS UINT64_MAX /* no event sets it */

struct lbl_shared {
	uint64_t horizon; /* while unset, LBL_HORIZON_UNSET plus the earliest that it may be */
	pthread_mutex_t lock; /* guards `births`; taken last, with a sink's lock held */
	struct lbl_births births;
};

static inline void lbl_shared_init(struct lbl_shared *shared)
{
	*shared = (struct lbl_shared){ .horizon = LBL_HORIZON_UNSET };
	pthread_mutex_init(&shared->lock, NULL);
	lbl_births_init(&shared->births);
}

static inline void lbl_shared_destroy(struct lbl_shared *shared)
{
	lbl_births_destroy(&shared->births);
	pthread_mutex_destroy(&shared->lock);
}

/* Forget all connections and the horizon. No shard is in use. */
static inline void lbl_shared_restart(struct lbl_shared *shared)
{
	shared->horizon = LBL_HORIZON_UNSET;
	lbl_births_destroy(&shared->births);
	lbl_births_init(&shared->births);
}

static inline bool lbl_horizon_is_set(uint64_t horizon)
{
	return horizon < LBL_HORIZON_UNSET;
}

static inline void lbl_shared_set_horizon(struct lbl_shared *shared, uint64_t horizon)
{
	WRITE_ONCE(&shared->horizon, horizon);
}

/* Return a time, LBL_HORIZON_UNSET or LBL_HORIZON_ENDLESS. */
static inline uint64_t lbl_shared_horizon(const struct lbl_shared *shared)
{
	uint64_t horizon = READ_ONCE(&shared->horizon);

	if (lbl_horizon_is_set(horizon) || horizon == LBL_HORIZON_ENDLESS)
		return horizon;
	return LBL_HORIZON_UNSET;
}

static inline bool lbl_shared_replace_horizon(struct lbl_shared *shared, uint64_t *known,
					      uint64_t horizon)
{
	return __atomic_compare_exchange_n(&shared->horizon, known, horizon, false,
					   __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/*
 * Set the horizon to `ns`, or beyond all that closed, if it is unset. No clock tells such a time as
 * would be taken for none.
 */
static inline void lbl_shared_settle_horizon(struct lbl_shared *shared, uint64_t ns)
{
	uint64_t known = READ_ONCE(&shared->horizon), earliest;

	if (!lbl_horizon_is_set(ns))
		return;
	while (!lbl_horizon_is_set(known) && known != LBL_HORIZON_ENDLESS) {
		earliest = known - LBL_HORIZON_UNSET;
		if (lbl_shared_replace_horizon(shared, &known, ns > earliest ? ns : earliest))
			return;
	}
}

/*
 * Before a connection that ended at `ns` counts as closed: the horizon, if it is unset, will not be
 * before `ns`. Returns false if it has been set meanwhile.
 */
static inline bool lbl_shared_pass(struct lbl_shared *shared, uint64_t ns)
{
	uint64_t known = READ_ONCE(&shared->horizon), earliest = LBL_HORIZON_UNSET + ns;

	if (ns >= LBL_HORIZON_UNSET - 1)
		earliest = LBL_HORIZON_UNSET;
	while (!lbl_horizon_is_set(known)) {
		if (known >= earliest || lbl_shared_replace_horizon(shared, &known, earliest))
			return true;
	}
	return false;
}

#endif
