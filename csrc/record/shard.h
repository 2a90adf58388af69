/* SPDX-License-Identifier: MIT */
/*
 * A shard: one writer's part of a tracker, with a table of backends and a bank per latency. It
 * records events, and accounts for each event that it does not record.
 */
#ifndef LBL_RECORD_SHARD_H
#define LBL_RECORD_SHARD_H

#include "base/intern.h"
#include "event/event.h"
#include "record/bank.h"
#include "record/metric.h"
#include "record/proxies.h"
#include "record/shared.h"
#include "record/table.h"
#include "stream/sink.h"

/* cdef: begin */
enum {
	LBL_BACKENDS_MAX = 1 << 24, /* of one shard */
	LBL_OBSERVED_LOG2 = 62, /* the program records up to 2^62 durations */
};

/* Outcomes of events: received = opened + closed + periodic + malformed. */
struct lbl_outcomes {
	uint64_t opened;
	uint64_t closed; /* = recorded + unmatched + rejected + ignored */
	uint64_t periodic;
	uint64_t malformed; /* records of unknown length or type, or that contradict themselves */
	uint64_t recorded;
	uint64_t unmatched; /* closed events without a known creation time */
	uint64_t rejected; /* closed before creation, implausibly late, or memory exhausted */
	uint64_t ignored; /* health probes and failed connects */
	uint64_t births_evicted; /* opened connections forgotten because too many were open */
	uint64_t not_counted; /* latencies besides lifetimes lost because memory was exhausted */
	uint64_t observed; /* durations that lbl_backend_observe() and _add() recorded */
};
/* cdef: end */

enum { LBL_SUMS_BYTES = LBL_METRICS - 1 <= 4 ? 32 : 64 };

/* The writer holds the sink's lock for a batch at a time; readers of table and banks do not. */
struct lbl_shard {
	struct lbl_sink sink;
	struct lbl_table table;
	struct lbl_bank banks[LBL_METRICS]; /* those of lifetimes and of `more` are in use */
	enum lbl_metric more[LBL_METRICS]; /* recorded latencies besides lifetimes */
	uint32_t n_more;
	struct lbl_array sums_memory; /* of `more`, LBL_SUMS_BYTES per backend */
	struct lbl_outcomes outcomes;
	uint64_t horizon; /* the shared one as this shard knows it */
	struct lbl_shared *shared; /* with the tracker's other shards; NULL if it is `by_name` */
	struct lbl_birth_source birth_source; /* the last source of creation times; all 0 = none */
	struct lbl_proxies proxies; /* none if the shard is `by_name` */
	bool by_name; /* keys contain a name's number instead of a proxy id */
	uint32_t n_by_hand; /* backends that the program added */
};

/*
 * Create a shard. `buckets` has an entry per enum lbl_metric, NULL for each latency not to record;
 * lifetimes are required. `ops` is lbl_shard_ops of record/burst.h (which depends on this header)
 * for a shard that a stream feeds, and `shared` is its tracker's; without operations, the shard is
 * `by_name`, and has nothing in common with others. `names` and `shared` must outlive the shard.
 * Returns 0 or -ENOMEM.
 */
int lbl_shard_new(struct lbl_buckets *const buckets[LBL_METRICS], uint32_t capacity,
		  struct lbl_intern *names, const struct lbl_sink_ops *ops,
		  struct lbl_shared *shared, struct lbl_shard **ret);
void lbl_shard_free(struct lbl_shard *shard);

/* Return a backend's sums of the latencies in `more`, in that order. */
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

/* The caller of the functions below holds the sink's lock. */

/*
 * Reserve address space for `capacity` backends. The counters may move: the caller excludes
 * readers. Returns 0, or -ENOMEM; then the capacity is as before.
 */
int lbl_shard_reserve(struct lbl_shard *shard, uint32_t capacity);
/* Reserve for twice as many if the table is full. As above, or -ENOSPC at LBL_BACKENDS_MAX. */
int lbl_shard_make_room(struct lbl_shard *shard);

/* What was counted until now is not open by the new horizon. */
void lbl_shard_take_horizon(struct lbl_shard *shard, uint64_t horizon);

/* Return the horizon for the events that follow. */
static inline uint64_t lbl_shard_horizon(struct lbl_shard *shard)
{
	uint64_t horizon = lbl_shared_horizon(shard->shared);

	if (unlikely(horizon != shard->horizon))
		lbl_shard_take_horizon(shard, horizon);
	return horizon;
}

/* Record one event of any format. */
void lbl_shard_record(struct lbl_shard *shard, const void *data, uint32_t len);

/*
 * Return the backend's index, added if unknown; 0, the overflow backend, if there is no room or the
 * name has no number.
 */
uint32_t lbl_shard_backend(struct lbl_shard *shard, const struct lbl_key *key);

/*
 * Return whether a duration can be recorded: not NaN, infinite, negative or more than
 * LBL_OBSERVE_MAX ns. Non-negative doubles have the same order as their bits.
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
 * Record `n` durations of a backend, in seconds, each valid by lbl_is_duration(). Returns the
 * number recorded: fewer than `n` only if memory is exhausted.
 */
size_t lbl_shard_observe(struct lbl_shard *shard, enum lbl_metric metric, uint32_t index,
			 const double *seconds, size_t n);

/* Limit of lbl_shard_add(): counts and sums of fewer durations cannot wrap around. */
#define LBL_OBSERVED_MAX (1ULL << LBL_OBSERVED_LOG2)

/*
 * Add a histogram to a backend's: `count` durations in all, with a sum of at most `count` times
 * LBL_OBSERVE_MAX. Returns 0; -ERANGE if the shard would have observed more than LBL_OBSERVED_MAX
 * durations; -ENOMEM if not all were added.
 */
int lbl_shard_add(struct lbl_shard *shard, enum lbl_metric metric, uint32_t index,
		  const struct lbl_totals *totals, uint64_t count);

/*
 * Return the key of a backend of this name: with the name's number as `proxy_ref`, it is the same in
 * all shards. Takes no lock.
 */
struct lbl_key lbl_shard_named(const struct lbl_shard *shard, uint32_t index, uint16_t name);

/*
 * Find the backends of a name, whose number is the key's `proxy_ref`: several, if several proxy ids
 * have it. `at` is 0 at first. Returns the next one's index, or 0 at the end.
 */
uint32_t lbl_shard_next_named(const struct lbl_shard *shard, const struct lbl_key *named,
			      size_t *at);

/*
 * Add all counts of another shard, which no stream feeds any more. `scratch` is working memory. A
 * backend stays the one it is while there is address space: the counters may move, so the caller
 * excludes readers.
 */
void lbl_shard_merge(struct lbl_shard *shard, const struct lbl_shard *from,
		     struct lbl_totals *scratch);

void lbl_outcomes_add(struct lbl_outcomes *to, const struct lbl_outcomes *from);

/*
 * Add one backend's counts to `tallies`, as lbl_tallies_read() does; `open` only if it is known.
 * Takes no lock.
 */
void lbl_shard_tallies(const struct lbl_shard *shard, uint32_t index, struct lbl_tallies *tallies);

/*
 * Set a backend's counters to zero, but with `keep_open`, go on with what is known to be open. The
 * caller excludes readers.
 */
void lbl_shard_clear(struct lbl_shard *shard, uint32_t index, bool keep_open);

/* Return a number that has changed if anything was recorded for the backend meanwhile. */
uint64_t lbl_shard_activity(struct lbl_shard *shard, uint32_t index, struct lbl_totals *scratch);

/*
 * Remove a backend, in three steps between which the writer may go on; the caller excludes readers
 * all the time. Unlink all that go; call lbl_table_forget_ids() to the end; then let
 * lbl_shard_free_one() add the counts of one after the other to the overflow backend of `to`, until
 * it returns false.
 */
void lbl_shard_unlink(struct lbl_shard *shard, uint32_t index);
bool lbl_shard_free_one(struct lbl_shard *shard, struct lbl_shard *to, struct lbl_totals *scratch);

#endif
