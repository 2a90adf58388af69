/* SPDX-License-Identifier: MIT */
/* From an event to a histogram: one writer's share of a tracker. */
#ifndef LBL_RECORD_SHARD_H
#define LBL_RECORD_SHARD_H

#include <pthread.h>

#include "base/intern.h"
#include "event/event.h"
#include "record/births.h"
#include "record/table.h"

/* cdef: begin */
struct lbl_tracker_stats {
	uint64_t opened;
	uint64_t closed; /* = recorded + unmatched + rejected + ignored */
	uint64_t periodic;
	uint64_t malformed; /* records of no known length or type */
	uint64_t recorded;
	uint64_t unmatched; /* closed, but nobody knows when it was created */
	uint64_t rejected; /* closed before it was created, or absurdly long after */
	uint64_t ignored; /* health probes and failed connects */
	uint64_t births_evicted; /* connections forgotten, since too many are open */
	uint64_t observed; /* lbl_backend_observe() */
};
/* cdef: end */

struct lbl_conntrack;

struct lbl_vip {
	uint8_t addr[16];
	uint16_t port;
	uint16_t proxy;
};

struct lbl_proxy_name {
	uint16_t proxy, name;
};

/*
 * One writer's share of a tracker. `lock` is held by whoever writes, for a batch at a time; the
 * counters and the table's contents are read without it.
 */
struct lbl_shard {
	pthread_mutex_t lock;
	struct lbl_buckets *buckets;
	struct lbl_table table;
	struct lbl_tracker_stats stats;
	struct lbl_births flows;
	struct lbl_conntrack *conntrack;
	struct lbl_intern *names;
	bool by_name; /* its keys hold names for proxy ids */
	uint32_t limit; /* backends it may add; its table may have room for more */
	struct lbl_proxy_name *proxies;
	size_t n_proxies;
	struct lbl_vip *vips;
	size_t n_vips;
};

/* Room for `capacity` backends; may add as many, unless its limit is lowered. */
int lbl_shard_new(struct lbl_buckets *buckets, uint32_t capacity, struct lbl_intern *names,
		  struct lbl_shard **ret);
void lbl_shard_free(struct lbl_shard *shard);

/* With the lock held: one record of any length. */
void lbl_shard_record(struct lbl_shard *shard, const void *data, uint32_t len);

/* lbl_burst.c: the same for 1 to LBL_BURST_MAX 56-byte events 64 bytes apart, quicker. */
void lbl_shard_record_burst(struct lbl_shard *shard, const void *first, uint32_t n);

enum { LBL_BURST_MAX = 64 };

/*
 * Whether seconds are a duration that can be recorded: not NaN, infinite, negative or more than
 * LBL_OBSERVE_MAX ns. Doubles that are not negative have the order of their bits.
 */
static inline bool lbl_is_duration(double seconds)
{
	const union {
		double d;
		uint64_t u;
	} x = { .d = seconds + 0.0 }, most = { .d = (double)LBL_OBSERVE_MAX / 1e9 };

	return x.u <= most.u;
}

/*
 * With the lock held: durations of a backend of this shard. Returns how many were recorded; fewer
 * only for lack of memory.
 */
size_t lbl_shard_observe(struct lbl_shard *shard, uint32_t index, const double *seconds, size_t n);

/* With the lock held: the backend's index, added if need be; 0 is the overflow. */
uint32_t lbl_shard_backend(struct lbl_shard *shard, const struct lbl_key *key);

#endif
