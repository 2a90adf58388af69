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
 * same time, they agree whatever the horizon is. Until there is one, nothing is known to be open.
 */
#define LBL_HORIZON_UNSET UINT64_MAX /* the next opened event sets it */
#define LBL_HORIZON_ENDLESS (UINT64_MAX - 1) /* no event sets it */

struct lbl_shared {
	uint64_t horizon_ns;
	pthread_mutex_t lock; /* guards `births`; taken last, with a sink's lock held */
	struct lbl_births births;
};

static inline void lbl_shared_init(struct lbl_shared *shared)
{
	*shared = (struct lbl_shared){ .horizon_ns = LBL_HORIZON_UNSET };
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
	shared->horizon_ns = LBL_HORIZON_UNSET;
	lbl_births_destroy(&shared->births);
	lbl_births_init(&shared->births);
}

static inline void lbl_shared_set_horizon(struct lbl_shared *shared, uint64_t ns)
{
	__atomic_store_n(&shared->horizon_ns, ns, __ATOMIC_RELAXED);
}

static inline uint64_t lbl_shared_horizon(const struct lbl_shared *shared)
{
	return __atomic_load_n(&shared->horizon_ns, __ATOMIC_RELAXED);
}

static inline bool lbl_horizon_is_set(uint64_t horizon_ns)
{
	return horizon_ns < LBL_HORIZON_ENDLESS;
}

/* Set the horizon if it is unset. */
static inline void lbl_shared_settle_horizon(struct lbl_shared *shared, uint64_t ns)
{
	uint64_t unset = LBL_HORIZON_UNSET;

	__atomic_compare_exchange_n(&shared->horizon_ns, &unset, ns, false, __ATOMIC_RELAXED,
				    __ATOMIC_RELAXED);
}

#endif
