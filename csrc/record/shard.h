/* SPDX-License-Identifier: MIT */
/*
 * From an event to the histograms, and the accounting of every event that does not get there. A
 * shard is one writer's part of a tracker: a table that finds backends, a bank per latency.
 */
#ifndef LBL_RECORD_SHARD_H
#define LBL_RECORD_SHARD_H

#include "base/intern.h"
#include "event/event.h"
#include "record/bank.h"
#include "record/births.h"
#include "record/metric.h"
#include "record/table.h"
#include "stream/sink.h"

/* cdef: begin */
/* What became of events. received = opened + closed + periodic + malformed. */
struct lbl_outcomes {
	uint64_t opened;
	uint64_t closed; /* = recorded + unmatched + rejected + ignored */
	uint64_t periodic;
	uint64_t malformed; /* records of no known length or type, or that contradict themselves */
	uint64_t recorded;
	uint64_t unmatched; /* closed, but nobody knows when it was created */
	uint64_t rejected; /* closed before it was created, or absurdly long after */
	uint64_t ignored; /* health probes and failed connects */
	uint64_t births_evicted; /* opened connections forgotten, since too many are open */
	uint64_t not_counted; /* other latencies than lifetimes that there was no memory for */
	uint64_t observed; /* lbl_backend_observe() */
};
/* cdef: end */

struct lbl_vip {
	uint8_t addr[16];
	uint16_t port;
	uint16_t proxy;
};

struct lbl_proxy_name {
	uint16_t proxy, name;
};

/*
 * The sink's lock is held by whoever writes, for a batch at a time; the table's and the banks'
 * contents are read without it.
 */
enum { LBL_SUMS_BYTES = LBL_METRICS - 1 <= 4 ? 32 : 64 };

struct lbl_shard {
	struct lbl_sink sink;
	struct lbl_table table;
	struct lbl_bank banks[LBL_METRICS]; /* lifetimes, and those of `more` */
	enum lbl_metric more[LBL_METRICS]; /* latencies that are recorded besides lifetimes */
	uint32_t n_more;
	struct lbl_array sums_memory; /* of `more`, in LBL_SUMS_BYTES per backend */
	struct lbl_outcomes outcomes;
	struct lbl_births births;
	struct lbl_birth_source elsewhere; /* asked last; all 0: nobody */
	struct lbl_intern *names;
	bool by_name; /* its keys refer to proxies by a name's number, not by a proxy id */
	uint32_t limit; /* backends it may add; its table may have room for more */
	struct lbl_proxy_name *proxies;
	size_t n_proxies;
	struct lbl_vip *vips;
	size_t n_vips;
};

/*
 * `buckets` of each latency, NULL for those that are not recorded; lifetimes always are. Room for
 * `capacity` backends; may add as many, unless its limit is lowered. `ops` take a stream's events:
 * lbl_shard_ops of record/burst.h, which is made of a shard's parts. -ENOMEM.
 */
int lbl_shard_new(struct lbl_buckets *const buckets[LBL_METRICS], uint32_t capacity,
		  struct lbl_intern *names, const struct lbl_sink_ops *ops, struct lbl_shard **ret);
void lbl_shard_free(struct lbl_shard *shard);

/* The sums of a backend's latencies besides the lifetime, in the order of `more`. */
static inline uint64_t *lbl_shard_sums(const struct lbl_shard *shard, const struct lbl_hot *hot)
{
	size_t offset = (size_t)((const uint8_t *)hot - (const uint8_t *)shard->table.hot);

	return (uint64_t *)(void *)(shard->sums_memory.at +
				    offset / (sizeof(*hot) / LBL_SUMS_BYTES));
}

static inline bool lbl_shard_has(const struct lbl_shard *shard, enum lbl_metric metric)
{
	return shard->banks[metric].buckets;
}

/* All below with the lock held. */

/* One record of any length. */
void lbl_shard_record(struct lbl_shard *shard, const void *data, uint32_t len);

/* The backend's index, added if need be; 0 is the overflow. */
uint32_t lbl_shard_backend(struct lbl_shard *shard, const struct lbl_key *key);

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
 * Durations of a backend of this shard. Returns how many were recorded; fewer only if memory ran
 * out.
 */
size_t lbl_shard_observe(struct lbl_shard *shard, enum lbl_metric metric, uint32_t index,
			 const double *seconds, size_t n);

/* Add all that another shard has counted, whose owner is gone. */
void lbl_shard_merge(struct lbl_shard *shard, const struct lbl_shard *from,
		     struct lbl_totals *scratch);

void lbl_outcomes_add(struct lbl_outcomes *to, const struct lbl_outcomes *from);

/* Make a backend as new. No reader may be at work. */
void lbl_shard_clear(struct lbl_shard *shard, uint32_t index);

#endif
