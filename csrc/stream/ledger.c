// SPDX-License-Identifier: MIT
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "stream/ledger.h"
#include "stream/mapset.h"
#include "stream/open.h"

enum { RETRIES_MAX = 50 };

struct member {
	struct lbl_stream *stream;
	uint64_t replaced; /* times, when the maps are known */
};

/*
 * `lock` guards all of it. The counters are ahead of the sum by at least `low` and at most `high`
 * (numbers modulo 2^64), because they are not read in the same instant.
 */
struct lbl_ledger {
	struct lbl_fork_entry fork;
	pthread_mutex_t lock;
	struct member *members;
	size_t n;
	struct lbl_mapset maps;
	uint64_t low, high;
	uint64_t under_way; /* events that may be counted and not in their ring yet: one per CPU */
	bool based; /* `low` and `high` are known */
	uint64_t replaced, restarts; /* of all members and maps, at the last reading */
	uint64_t dropped_in_maps; /* at the last reading that no other stream spoilt */
	uint64_t stranded; /* told as in a ring that is gone */
	uint64_t told_sum, told_produced; /* by lbl_ledger_visit(), while `produced` was known */
	struct lbl_stream_stats last;
};

/* ---- creation ---- */

static void handle_fork(struct lbl_fork_entry *entry, enum lbl_fork_phase phase)
{
	struct lbl_ledger *ledger = (struct lbl_ledger *)entry;

	if (phase == LBL_FORK_PREPARE)
		pthread_mutex_lock(&ledger->lock);
	else
		pthread_mutex_unlock(&ledger->lock);
}

static struct lbl_ledger *alloc(size_t n)
{
	struct lbl_ledger *ledger = calloc(1, sizeof(*ledger));

	if (!ledger)
		return NULL;
	ledger->members = calloc(n + 1, sizeof(*ledger->members));
	if (ledger->members && !lbl_mapset_init(&ledger->maps, n))
		return ledger;
	free(ledger->members);
	free(ledger);
	return NULL;
}

int lbl_ledger_new(struct lbl_stream *const *streams, size_t n, struct lbl_ledger **ret)
{
	struct lbl_ledger *ledger = alloc(n);
	struct lbl_stream_stats unused;
	size_t i;
	int err;

	if (!ledger)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		ledger->members[i].stream = streams[i];
		lbl_ref(&streams[i]->refs);
	}
	ledger->n = n;
	ledger->under_way = (uint64_t)sysconf(_SC_NPROCESSORS_CONF);
	pthread_mutex_init(&ledger->lock, NULL);
	ledger->fork.rank = LBL_FORK_LEDGER;
	ledger->fork.handle = handle_fork;
	lbl_fork_register(&ledger->fork);
	err = lbl_ledger_restart(ledger, &unused);
	if (err)
		lbl_ledger_free(ledger);
	else
		*ret = ledger;
	return err;
}

void lbl_ledger_free(struct lbl_ledger *ledger)
{
	size_t i;

	if (!ledger)
		return;
	lbl_fork_unregister(&ledger->fork);
	lbl_mapset_destroy(&ledger->maps);
	for (i = 0; i < ledger->n; i++)
		lbl_stream_free(ledger->members[i].stream);
	pthread_mutex_destroy(&ledger->lock);
	free(ledger->members);
	free(ledger);
}

/* ---- a reading ---- */

struct visit {
	void (*call)(void *ctx, size_t i, const struct lbl_drain_counts *counts);
	void *ctx;
};

struct reading {
	struct lbl_stream_stats stats;
	struct lbl_counters memory; /* of rings in memory */
	uint64_t dropped_in_maps;
	uint64_t first, last; /* produced, before and after the rings were read */
	bool orphaned;
};

/* The first reading's maps may be old; those that come later with an unused ring are as new. */
static void find_maps(struct lbl_ledger *ledger)
{
	size_t i;

	lbl_mapset_begin_use(&ledger->maps);
	for (i = 0; i < ledger->n; i++) {
		struct lbl_stream *stream = ledger->members[i].stream;

		pthread_mutex_lock(&stream->lock);
		ledger->members[i].replaced = stream->counts.replaced;
		if (stream->counters)
			lbl_mapset_use(&ledger->maps, stream->counters,
				       ledger->based && stream->never_consumed);
		pthread_mutex_unlock(&stream->lock);
	}
	lbl_mapset_end_use(&ledger->maps);
}

/* Of several rings, the one that has stalled for longest. */
static void read_stall(const struct lbl_ring *ring, struct lbl_stream_stats *stats)
{
	uint64_t now = lbl_now_ns(), since = lbl_ring_stalled_since(ring, now);

	if (!since || (stats->stalled_since_ns && stats->stalled_since_ns < since))
		return;
	stats->stalled_since_ns = since;
	stats->stalled_seconds = (now - since) / 1000000000;
}

static void read_ring(struct lbl_stream *stream, struct reading *reading)
{
	struct lbl_stream_stats *stats = &reading->stats;

	reading->orphaned |= stream->orphaned;
	reading->memory.produced += stream->produced.produced;
	reading->memory.dropped += stream->produced.dropped;
	if (!stream->orphaned)
		lbl_drain_settle(&stream->ring, &stream->counts);
	stats->received += stream->counts.received;
	stats->taken += stream->counts.taken;
	stats->moved += stream->counts.moved;
	stats->corrupt += stream->counts.corrupt;
	stats->replaced += stream->counts.replaced;
	stats->attached &= lbl_stream_attached(stream);
	stats->fill_max_bytes += stream->counts.fill_max;
	stats->size_bytes += stream->ring.mask + 1;
	stats->counted &= stream->counters || stream->ring.memory;
	if (stream->orphaned) /* the ring is the parent's */
		return;
	stats->in_ring += lbl_ring_waiting(&stream->ring);
	stats->fill_bytes += lbl_ring_end(&stream->ring) - stream->ring.position;
	read_stall(&stream->ring, stats);
}

/* Holding both locks freezes a ring in memory, so its counters and its fill agree. */
static bool read_stream(const struct lbl_ledger *ledger, size_t i, const struct visit *visit,
			struct reading *reading)
{
	struct lbl_stream *stream = ledger->members[i].stream;
	bool is_same;

	pthread_mutex_lock(&stream->producing);
	pthread_mutex_lock(&stream->lock);
	is_same = stream->counts.replaced == ledger->members[i].replaced;
	read_ring(stream, reading);
	if (visit->call)
		visit->call(visit->ctx, i, &stream->counts);
	pthread_mutex_unlock(&stream->lock);
	pthread_mutex_unlock(&stream->producing);
	return is_same;
}

/*
 * Producers keep counting while the rings are read, so their counters are read before and after.
 * -EAGAIN if something was replaced or set to zero in between.
 */
static int read_all(struct lbl_ledger *ledger, const struct visit *visit, struct reading *ret)
{
	struct reading reading = { .stats.counted = 1,
				   .stats.attached = 1,
				   .stats.in_ring = ledger->stranded };
	uint64_t restarts;
	bool is_same = true;
	size_t i;
	int err;

	find_maps(ledger);
	err = lbl_mapset_read(&ledger->maps, &reading.first);
	if (err)
		return err;
	restarts = lbl_mapset_restarts(&ledger->maps);
	reading.dropped_in_maps = lbl_mapset_dropped(&ledger->maps);
	for (i = 0; i < ledger->n; i++)
		is_same &= read_stream(ledger, i, visit, &reading);
	err = lbl_mapset_read(&ledger->maps, &reading.last);
	if (err)
		return err;
	reading.first += reading.memory.produced;
	reading.last += reading.memory.produced;
	reading.stats.dropped = reading.dropped_in_maps + reading.memory.dropped;
	*ret = reading;
	return is_same && restarts == lbl_mapset_restarts(&ledger->maps) ? 0 : -EAGAIN;
}

/* ---- what a reading tells ---- */

static uint64_t sum_of(const struct lbl_stream_stats *stats)
{
	return stats->received + stats->taken + stats->dropped + stats->in_ring;
}

/* Bounds of an interval modulo 2^64: whether `a` is less than `b`. */
static bool is_less(uint64_t a, uint64_t b)
{
	return (int64_t)(a - b) < 0;
}

/* The sum, or what is known to have been produced, was `sum` during this reading. */
static void narrow(struct lbl_ledger *ledger, const struct reading *reading, uint64_t sum)
{
	uint64_t slack = ledger->maps.n ? ledger->under_way : 0;
	uint64_t low = reading->first - sum - slack, high = reading->last - sum;

	if (!ledger->based || is_less(ledger->low, low))
		ledger->low = low;
	if (!ledger->based || is_less(high, ledger->high))
		ledger->high = high;
	ledger->based = true;
}

/* Records that were told as in a ring, and are neither there nor received, are told so for ever. */
static void strand(struct lbl_ledger *ledger, struct reading *reading)
{
	uint64_t sum = sum_of(&reading->stats);

	if (sum >= ledger->told_sum)
		return;
	ledger->stranded += ledger->told_sum - sum;
	reading->stats.in_ring += ledger->told_sum - sum;
}

/*
 * From now on, what was produced is the sum, or what was told if that is more. If a map was set to
 * zero, it still tells the least that was produced; if something was replaced, nothing does.
 */
static void rebase(struct lbl_ledger *ledger, struct reading *reading)
{
	bool is_replaced = !ledger->based || reading->stats.replaced != ledger->replaced;
	uint64_t sum;

	lbl_mapset_settle(&ledger->maps);
	if (is_replaced)
		strand(ledger, reading);
	sum = sum_of(&reading->stats);
	if (sum < ledger->told_produced)
		sum = ledger->told_produced;
	if (is_replaced || !is_less(sum, reading->first - ledger->high)) {
		ledger->based = false;
		narrow(ledger, reading, sum);
	}
	ledger->replaced = reading->stats.replaced;
	ledger->restarts = lbl_mapset_restarts(&ledger->maps);
}

/*
 * Set `produced`: the sum if the counters allow it, else the nearer counter. Returns whether it is
 * the sum.
 */
static bool balance(struct lbl_ledger *ledger, struct reading *reading)
{
	struct lbl_stream_stats *stats = &reading->stats;
	uint64_t sum = sum_of(stats), least, most;

	if (!ledger->based || reading->stats.replaced != ledger->replaced ||
	    ledger->restarts != lbl_mapset_restarts(&ledger->maps))
		rebase(ledger, reading);
	sum = sum_of(stats);
	least = reading->first - ledger->high;
	most = reading->last - ledger->low;
	stats->produced = is_less(sum, least) ? least : is_less(most, sum) ? most : sum;
	if (stats->produced != sum)
		return false;
	narrow(ledger, reading, sum);
	return true;
}

/* Others' events are among the counted ones, so what is counted now is not the set's. */
static void pass_over(struct lbl_ledger *ledger, struct reading *reading)
{
	lbl_mapset_settle_at(&ledger->maps, ledger->dropped_in_maps);
	ledger->based = false;
	reading->dropped_in_maps = ledger->dropped_in_maps;
	reading->stats.dropped = ledger->dropped_in_maps + reading->memory.dropped;
	reading->stats.counted = 0;
}

/* Returns whether the reading can stand: the sum holds, or need not. */
static bool take(struct lbl_ledger *ledger, struct reading *reading)
{
	struct lbl_stream_stats *stats = &reading->stats;
	bool is_balanced = true;

	if (lbl_mapset_is_shared(&ledger->maps))
		pass_over(ledger, reading);
	if (stats->counted && reading->orphaned)
		strand(ledger, reading);
	if (stats->counted && !reading->orphaned)
		is_balanced = balance(ledger, reading);
	else
		stats->produced = sum_of(stats);
	ledger->dropped_in_maps = reading->dropped_in_maps;
	ledger->last = *stats;
	return is_balanced;
}

/*
 * An event counted as produced but not yet in the ring unbalances the sum for an instant, so retry.
 * If the sum stays unbalanced, report it as it is.
 */
static int read_balanced(struct lbl_ledger *ledger, const struct visit *visit)
{
	int retries = RETRIES_MAX, err;
	struct reading reading = { 0 };

	do {
		err = read_all(ledger, visit, &reading);
		if (err == -EAGAIN && !retries)
			ledger->based = false; /* replaced faster than it is read */
		else if (err == -EAGAIN)
			continue;
		else if (err)
			return err;
		if (take(ledger, &reading))
			return 0;
		sched_yield();
	} while (retries--);
	return 0;
}

int lbl_ledger_restart(struct lbl_ledger *ledger, struct lbl_stream_stats *ret)
{
	const struct visit none = { 0 };
	int err;

	pthread_mutex_lock(&ledger->lock);
	lbl_mapset_clear(&ledger->maps);
	ledger->based = false;
	ledger->dropped_in_maps = ledger->stranded = 0;
	ledger->told_sum = ledger->told_produced = 0;
	ledger->last = (struct lbl_stream_stats){ 0 };
	err = read_balanced(ledger, &none);
	*ret = ledger->last;
	pthread_mutex_unlock(&ledger->lock);
	return err;
}

static void tell(struct lbl_ledger *ledger, struct lbl_stream_stats *ret)
{
	*ret = ledger->last;
	if (!ret->counted)
		return;
	if (ret->produced < ledger->told_produced)
		ret->produced = ledger->told_produced;
	ledger->told_produced = ret->produced;
	ledger->told_sum = sum_of(ret);
}

int lbl_ledger_visit(struct lbl_ledger *ledger,
		     void (*visit)(void *ctx, size_t i, const struct lbl_drain_counts *counts),
		     void *ctx, struct lbl_stream_stats *ret)
{
	const struct visit each = { visit, ctx };
	int err;

	pthread_mutex_lock(&ledger->lock);
	err = read_balanced(ledger, &each);
	tell(ledger, ret);
	pthread_mutex_unlock(&ledger->lock);
	return err;
}

int lbl_ledger_read(struct lbl_ledger *ledger, struct lbl_stream_stats *ret)
{
	return lbl_ledger_visit(ledger, NULL, NULL, ret);
}
