// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "record/burst.h"
#include "stream/open.h"
#include "track/accounting.h"
#include "track/expiry.h"
#include "track/open.h"
#include "track/removal.h"
#include "track/tracker.h"

/* ---- creation ---- */

static const struct lbl_sink_ops by_hand = { 0 }; /* no stream feeds such a shard */

static void handle_fork(struct lbl_fork_entry *entry, enum lbl_fork_phase phase)
{
	struct lbl_tracker *tracker = (struct lbl_tracker *)entry;

	if (phase == LBL_FORK_PREPARE) {
		pthread_mutex_lock(&tracker->lock);
		return;
	}
	if (phase == LBL_FORK_CHILD) {
		lbl_expiry_forked(tracker);
		tracker->is_copy = true;
	}
	pthread_mutex_unlock(&tracker->lock);
}

static void destroy(struct lbl_tracker *tracker)
{
	uint32_t i;

	lbl_shard_free(tracker->own);
	lbl_shard_free(tracker->removed);
	lbl_intern_free(tracker->names);
	for (i = 0; i < LBL_METRICS; i++)
		lbl_buckets_free(tracker->buckets[i]);
	free(tracker->scratch);
	free(tracker);
}

static int init(struct lbl_tracker *tracker, struct lbl_buckets *const *buckets)
{
	uint32_t i;
	int err;

	for (i = 0; i < LBL_METRICS; i++) {
		if (buckets[i])
			lbl_ref(&buckets[i]->refs);
		tracker->buckets[i] = buckets[i];
	}
	tracker->names = lbl_intern_new();
	tracker->scratch = calloc(1, sizeof(*tracker->scratch));
	if (!tracker->names || !tracker->scratch)
		return -ENOMEM;
	err = lbl_shard_new(buckets, 0, tracker->names, &by_hand, NULL, &tracker->own);
	if (!err)
		err = lbl_shard_new(buckets, 0, tracker->names, &by_hand, NULL, &tracker->removed);
	if (err)
		return err;
	tracker->past.counted = true;
	return 0;
}

int lbl_tracker_new(struct lbl_buckets *const *buckets, uint32_t max_backends,
		    struct lbl_tracker **ret)
{
	struct lbl_tracker *tracker;
	int err;

	if (!max_backends || max_backends > LBL_BACKENDS_MAX || !buckets[LBL_LIFETIME])
		return -EINVAL;
	tracker = calloc(1, sizeof(*tracker));
	if (!tracker)
		return -ENOMEM;
	tracker->max_backends = max_backends;
	tracker->created_ns = tracker->started_ns = lbl_unix_ns();
	err = init(tracker, buckets);
	if (err) {
		destroy(tracker);
		return err;
	}
	pthread_mutex_init(&tracker->lock, NULL);
	lbl_shared_init(&tracker->shared);
	tracker->fork.rank = LBL_FORK_TRACKER;
	tracker->fork.handle = handle_fork;
	lbl_fork_register(&tracker->fork);
	*ret = tracker;
	return 0;
}

int lbl_tracker_name(struct lbl_tracker *tracker, const char *name, size_t len)
{
	return lbl_intern_insert(tracker->names, name, len);
}

int lbl_tracker_find_name(struct lbl_tracker *tracker, const char *name, size_t len)
{
	return lbl_intern_find(tracker->names, name, len);
}

const char *lbl_tracker_name_text(struct lbl_tracker *tracker, uint16_t name, size_t *len)
{
	return lbl_intern_text(tracker->names, name, len);
}

/* ---- attachments: created and freed without the tracker's lock, which fork() takes ---- */

struct attachments {
	struct lbl_attachment *each;
	struct lbl_stream **streams;
	struct lbl_ledger *ledger;
	size_t n;
};

static void free_attachments(struct attachments *made)
{
	size_t i;

	for (i = 0; i < made->n; i++) {
		lbl_shard_free(made->each[i].shard);
		lbl_conntrack_end(&made->each[i].conntrack);
	}
	free(made->each);
	lbl_ledger_free(made->ledger);
	free(made->streams);
	*made = (struct attachments){ 0 };
}

static int make_attachment(struct lbl_tracker *tracker, struct lbl_attachment *ret,
			   struct lbl_conntrack *conntrack, size_t n_vips)
{
	int err = lbl_shard_new(tracker->buckets, tracker->max_backends, tracker->names,
				&lbl_shard_ops, &tracker->shared, &ret->shard);

	if (!err)
		err = lbl_proxies_reserve_vips(&ret->shard->proxies, n_vips);
	if (err)
		return err;
	if (conntrack) {
		err = lbl_conntrack_begin(conntrack, &ret->conntrack);
		if (err)
			return err;
		ret->shard->birth_source = lbl_conntrack_births(conntrack);
	}
	return 0;
}

static int make_attachments(struct lbl_tracker *tracker, struct lbl_stream *const *streams,
			    size_t n, struct lbl_conntrack *conntrack, size_t n_vips,
			    struct attachments *ret)
{
	int err = 0;
	size_t i;

	*ret = (struct attachments){ .each = calloc(n, sizeof(*ret->each)),
				     .streams = calloc(n, sizeof(struct lbl_stream *)) };
	if (!ret->each || !ret->streams)
		err = -ENOMEM;
	for (i = 0; i < n && !err; i++) {
		ret->n++;
		ret->each[i].stream = ret->streams[i] = streams[i];
		err = make_attachment(tracker, &ret->each[i], conntrack, n_vips);
	}
	if (!err)
		err = lbl_ledger_new(streams, n, &ret->ledger);
	if (err)
		free_attachments(ret);
	return err;
}

/* ---- start and stop ---- */

static bool is_running(const struct lbl_tracker *tracker)
{
	size_t i;

	for (i = 0; i < tracker->n_attached; i++) {
		if (!lbl_stream_alive(tracker->streams[i]))
			return false;
	}
	return tracker->n_attached;
}

/* Merge the counts of the streams' shards into the own shard. The caller holds the lock. */
static struct attachments detach(struct lbl_tracker *tracker)
{
	struct attachments ended = { tracker->attached, tracker->streams, tracker->ledger,
				     tracker->n_attached };
	struct lbl_shard *own = tracker->own;
	size_t i;

	lbl_accounting_end(tracker);
	pthread_mutex_lock(&own->sink.lock);
	for (i = 0; i < ended.n; i++)
		lbl_shard_merge(own, ended.each[i].shard, tracker->scratch);
	pthread_mutex_unlock(&own->sink.lock);
	tracker->attached = NULL;
	tracker->streams = NULL;
	tracker->ledger = NULL;
	tracker->n_attached = 0;
	lbl_open_restart(tracker, lbl_accounting_lost(tracker));
	return ended;
}

/* Drop the references that lbl_stream_attach() took. */
static void free_streams(const struct attachments *ended)
{
	size_t i;

	for (i = 0; i < ended->n; i++)
		lbl_stream_free(ended->streams[i]);
}

static void release(const struct attachments *made, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		lbl_stream_release(made->streams[i]);
}

/* Reserve a place in every stream, so that nothing is drained if one of them has none. */
static int reserve_all(const struct attachments *made)
{
	int err = 0;
	size_t i;

	for (i = 0; i < made->n && !err; i++)
		err = lbl_stream_reserve(made->streams[i]);
	if (err)
		release(made, i - 1);
	return err;
}

static void name_proxy(const struct attachments *made, const struct lbl_proxy *proxy, uint16_t name)
{
	size_t i;

	for (i = 0; i < made->n; i++) {
		struct lbl_proxies *proxies = &made->each[i].shard->proxies;

		if (proxy->stream != LBL_ALL_STREAMS && (size_t)proxy->stream != i)
			continue;
		if (proxy->has_vip)
			lbl_proxies_add_vip(proxies, proxy->vip_addr, proxy->vip_port, name);
		else
			lbl_proxies_set(proxies, proxy->id, name);
	}
}

/* Returns the first name's number or -ENOMEM. */
static int name_proxies(struct lbl_tracker *tracker, const struct attachments *made,
			const struct lbl_proxy *proxies, size_t n)
{
	int first = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		int name =
			lbl_intern_insert(tracker->names, proxies[i].name, proxies[i].name_bytes);

		if (name < 0)
			return name;
		if (i == 0)
			first = name;
		name_proxy(made, &proxies[i], (uint16_t)name);
	}
	for (i = 0; i < made->n; i++)
		lbl_proxies_sort_vips(&made->each[i].shard->proxies);
	return first;
}

/* Names are added when nothing else can be refused any more: a refused call leaves none behind. */
static int attach_all(struct lbl_tracker *tracker, struct attachments *made,
		      const struct lbl_proxy *proxies, size_t n_proxies)
{
	int err = reserve_all(made), name = 0;
	size_t i;

	if (err)
		return err;
	lbl_shared_restart(&tracker->shared);
	tracker->attached = made->each;
	tracker->streams = made->streams;
	tracker->ledger = made->ledger;
	tracker->n_attached = made->n;
	err = lbl_accounting_begin(tracker);
	if (!err)
		name = name_proxies(tracker, made, proxies, n_proxies);
	if (name < 0)
		err = name;
	if (err) {
		release(made, made->n);
		tracker->attached = NULL;
		tracker->streams = NULL;
		tracker->ledger = NULL;
		tracker->n_attached = 0;
		return err;
	}
	for (i = 0; i < made->n; i++) {
		struct lbl_attachment *each = &made->each[i];

		lbl_stream_attach_reserved(each->stream, &each->shard->sink, &each->before);
	}
	tracker->proxy = (uint16_t)name;
	return 0;
}

static bool has_duplicate(struct lbl_stream *const *streams, size_t n)
{
	size_t i, k;

	for (i = 0; i < n; i++) {
		for (k = 0; k < i; k++) {
			if (streams[i] == streams[k])
				return true;
		}
	}
	return false;
}

int lbl_tracker_start(struct lbl_tracker *tracker, struct lbl_stream *const *streams, size_t n,
		      struct lbl_conntrack *conntrack, const struct lbl_proxy *proxies,
		      size_t n_proxies)
{
	struct attachments made, ended;
	int64_t scanned;
	int err;

	if (has_duplicate(streams, n))
		return -EBUSY;
	err = make_attachments(tracker, streams, n, conntrack, n_proxies, &made);
	if (err)
		return err;
	scanned = conntrack ? lbl_conntrack_scan(conntrack) : 0; /* so open connections are known */
	if (scanned < 0) {
		free_attachments(&made);
		return (int)scanned;
	}
	pthread_mutex_lock(&tracker->lock);
	if (is_running(tracker)) {
		pthread_mutex_unlock(&tracker->lock);
		free_attachments(&made);
		return -EALREADY;
	}
	ended = detach(tracker);
	err = attach_all(tracker, &made, proxies, n_proxies);
	if (!err)
		tracker->is_copy = false;
	pthread_mutex_unlock(&tracker->lock);
	free_streams(&ended);
	free_attachments(&ended);
	if (err)
		free_attachments(&made);
	return err;
}

static void end(struct lbl_tracker *tracker, bool also_copies)
{
	struct attachments ended = { 0 };

	pthread_mutex_lock(&tracker->lock);
	if (also_copies || !tracker->is_copy)
		ended = detach(tracker);
	pthread_mutex_unlock(&tracker->lock);
	free_streams(&ended);
	free_attachments(&ended);
}

void lbl_tracker_stop(struct lbl_tracker *tracker)
{
	end(tracker, false);
}

void lbl_tracker_free(struct lbl_tracker *tracker)
{
	if (!tracker)
		return;
	lbl_expiry_stop(tracker);
	end(tracker, true);
	lbl_fork_unregister(&tracker->fork);
	pthread_mutex_destroy(&tracker->lock);
	lbl_shared_destroy(&tracker->shared);
	destroy(tracker);
}

bool lbl_tracker_running(struct lbl_tracker *tracker)
{
	bool running;

	pthread_mutex_lock(&tracker->lock);
	running = is_running(tracker);
	pthread_mutex_unlock(&tracker->lock);
	return running;
}

/* ---- statistics and reset ---- */

int lbl_tracker_stats(struct lbl_tracker *tracker, struct lbl_tracker_stats *ret)
{
	int err;

	pthread_mutex_lock(&tracker->lock);
	err = lbl_accounting_read(tracker, &ret->events, &ret->outcomes);
	ret->running = is_running(tracker);
	ret->is_copy = tracker->is_copy;
	ret->proxy = tracker->proxy;
	ret->created_ns = tracker->created_ns;
	ret->started_ns = tracker->started_ns;
	ret->open_error = lbl_open_error(tracker, lbl_lost(&ret->events, &ret->outcomes));
	pthread_mutex_unlock(&tracker->lock);
	return err;
}

size_t lbl_tracker_row_bytes(const struct lbl_tracker *tracker)
{
	const struct lbl_shard *own = tracker->own;
	size_t n = sizeof(struct lbl_hot) + sizeof(struct lbl_cold);
	uint32_t i;

	for (i = 0; i < LBL_METRICS; i++) {
		if (lbl_shard_has(own, (enum lbl_metric)i))
			n += own->banks[i].row_bytes + sizeof(struct lbl_carried);
	}
	return n + (own->n_more ? LBL_SUMS_BYTES : 0);
}

/* Number of backends cleared per lock: in between, the drain continues. */
enum { CLEARED_PER_LOCK = 256 };

static void reset_shard(struct lbl_shard *shard, bool keep_open)
{
	uint32_t i;

	pthread_mutex_lock(&shard->sink.lock);
	for (i = 0; i < shard->table.n; i++) {
		if (!i || shard->table.cold[i].name)
			lbl_shard_clear(shard, i, keep_open);
		if (i % CLEARED_PER_LOCK == 0) {
			pthread_mutex_unlock(&shard->sink.lock);
			pthread_mutex_lock(&shard->sink.lock);
		}
	}
	pthread_mutex_unlock(&shard->sink.lock);
}

/* After a reset: nothing has come since then, and nothing is open. */
static bool is_empty(void *ctx, const struct lbl_part *parts, size_t n)
{
	struct lbl_tracker *tracker = ctx;
	uint64_t activity = 0;
	size_t i;

	for (i = 0; i < n; i++)
		activity |= lbl_shard_activity(parts[i].shard, parts[i].index, tracker->scratch);
	return !activity && lbl_open_of(parts, n) <= 0;
}

void lbl_tracker_reset(struct lbl_tracker *tracker)
{
	struct lbl_part *parts;
	bool keep_open;
	uint64_t lost;
	size_t n, i;

	pthread_mutex_lock(&tracker->lock);
	tracker->started_ns = lbl_unix_ns();
	lost = lbl_accounting_lost(tracker);
	tracker->cleared++;
	for (i = 0; i < tracker->n_attached; i++) /* what is lost may end what waits in a ring */
		lbl_stream_drain(tracker->streams[i]);
	keep_open = !lbl_open_error(tracker, lost); /* else nothing is known to be open */
	if (!keep_open)
		lbl_shared_set_horizon(&tracker->shared, LBL_HORIZON_ENDLESS);
	for (i = 0; i < lbl_tracker_shards(tracker); i++)
		reset_shard(lbl_tracker_shard(tracker, i), keep_open);
	reset_shard(tracker->removed, false);
	n = lbl_parts_gather(tracker, lbl_tracker_shards(tracker), &parts);
	lbl_remove_parts(tracker, parts, n, is_empty, tracker);
	free(parts);
	if (!keep_open) {
		lbl_open_restart(tracker, lost);
		lbl_shared_set_horizon(&tracker->shared, LBL_HORIZON_UNSET);
	}
	pthread_mutex_unlock(&tracker->lock);
}
