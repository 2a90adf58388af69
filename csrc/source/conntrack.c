// SPDX-License-Identifier: MIT
#include <pthread.h>
#include <stdlib.h>

#include "base/fork.h"
#include "base/thread.h"
#include "base/util.h"
#include "source/conntrack.h"
#include "source/seen.h"

static const uint64_t INTERVAL_NS = 1000000000;

enum {
	SCAN_SHARE = 20, /* a scan's CPU time is at most this part of the time between scans: 5 % */
	ADDED_PER_LOCK = 64, /* each may be the end of one connection and the begin of another */
};

_Static_assert(2 * ADDED_PER_LOCK <= LBL_SEEN_SWEPT, "a watch is told of so many changes");

/*
 * `control` serializes begin and end. `lock`, nested in it and in sinks' locks, guards what follows
 * it. No thread holds `lock` during a system call: closed events wait for it.
 */
struct lbl_conntrack {
	struct lbl_fork_entry fork;
	int refs;
	struct lbl_entries entries;
	pthread_mutex_t control;
	uint32_t users; /* that began since the last fork */
	uint32_t forks; /* how many processes this is away from the one that opened the map */
	pthread_t thread;
	bool threaded;
	struct lbl_conntrack_watch watch; /* all 0 if nobody watches */
	uint64_t interval_ns;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* a scan has ended, or the thread is to stop */
	bool stopping;
	struct lbl_seen seen;
	struct lbl_conntrack_stats stats;
};

/* ---- creation ---- */

/* The child has no thread that scans, nor any that waits, and it starts without users. */
static void handle_fork(struct lbl_fork_entry *entry, enum lbl_fork_phase phase)
{
	struct lbl_conntrack *conntrack = (struct lbl_conntrack *)entry;

	if (phase == LBL_FORK_PREPARE) {
		pthread_mutex_lock(&conntrack->control);
		pthread_mutex_lock(&conntrack->lock);
		return;
	}
	if (phase == LBL_FORK_CHILD) {
		conntrack->threaded = false;
		conntrack->users = 0;
		conntrack->forks++;
		lbl_seen_end(&conntrack->seen);
		lbl_cond_init(&conntrack->changed);
	}
	pthread_mutex_unlock(&conntrack->lock);
	pthread_mutex_unlock(&conntrack->control);
}

static int open_ranked(int fd, const struct lbl_layout *layout, enum lbl_fork_rank rank,
		       struct lbl_conntrack **ret)
{
	struct lbl_conntrack *conntrack = calloc(1, sizeof(*conntrack));
	int err;

	if (!conntrack)
		return -ENOMEM;
	err = lbl_entries_open(fd, layout, &conntrack->entries);
	if (err) {
		free(conntrack);
		return err;
	}
	err = lbl_seen_init(&conntrack->seen, conntrack->entries.max_entries);
	if (err) {
		lbl_entries_close(&conntrack->entries);
		free(conntrack);
		return err;
	}
	conntrack->refs = 1;
	conntrack->interval_ns = INTERVAL_NS;
	pthread_mutex_init(&conntrack->control, NULL);
	pthread_mutex_init(&conntrack->lock, NULL);
	lbl_cond_init(&conntrack->changed);
	conntrack->fork.rank = rank;
	conntrack->fork.handle = handle_fork;
	lbl_fork_register(&conntrack->fork);
	*ret = conntrack;
	return 0;
}

int lbl_conntrack_open(int fd, const struct lbl_layout *layout, struct lbl_conntrack **ret)
{
	return open_ranked(fd, layout, LBL_FORK_SOURCE, ret);
}

/* The thread sends events, so it takes a stream's locks while who ends it holds `control`. */
int lbl_conntrack_open_watched(int fd, const struct lbl_layout *layout,
			       const struct lbl_conntrack_watch *watch, uint64_t interval_ns,
			       struct lbl_conntrack **ret)
{
	int err = open_ranked(fd, layout, LBL_FORK_SENDER, ret);

	if (err)
		return err;
	(*ret)->watch = *watch;
	(*ret)->interval_ns = interval_ns;
	lbl_seen_set_watch(&(*ret)->seen, &watch->of_seen);
	return 0;
}

void lbl_conntrack_free(struct lbl_conntrack *conntrack)
{
	if (!conntrack || !lbl_unref(&conntrack->refs))
		return;
	lbl_fork_unregister(&conntrack->fork);
	pthread_cond_destroy(&conntrack->changed);
	pthread_mutex_destroy(&conntrack->lock);
	pthread_mutex_destroy(&conntrack->control);
	lbl_seen_destroy(&conntrack->seen);
	lbl_entries_close(&conntrack->entries);
	free(conntrack);
}

/* ---- reading ---- */

int lbl_conntrack_lookup(const struct lbl_conntrack *conntrack, struct lbl_connection *ret)
{
	return lbl_entries_lookup(&conntrack->entries, ret);
}

struct list {
	struct lbl_connection *found;
	size_t n, capacity;
};

static int append(void *ctx, const struct lbl_connection *found, size_t n)
{
	struct list *list = ctx;

	if (list->n + n > list->capacity) {
		size_t larger = 2 * (list->n + n);
		struct lbl_connection *grown = reallocarray(list->found, larger, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		list->found = grown;
		list->capacity = larger;
	}
	memcpy(list->found + list->n, found, n * sizeof(*found));
	list->n += n;
	return 0;
}

int64_t lbl_conntrack_list(struct lbl_conntrack *conntrack, struct lbl_connection **ret)
{
	struct list list = { 0 };
	int err = lbl_entries_walk(&conntrack->entries, append, &list);

	if (err) {
		free(list.found);
		return err;
	}
	*ret = list.found;
	return (int64_t)list.n;
}

void lbl_connections_free(struct lbl_connection *connections)
{
	free(connections);
}

/* ---- scans ---- */

struct scan {
	struct lbl_conntrack *conntrack;
	bool by_thread;
	int64_t n;
};

static bool is_wanted(const struct lbl_conntrack *conntrack, const struct lbl_connection *found)
{
	const struct lbl_conntrack_watch *watch = &conntrack->watch;

	return !watch->wants || watch->wants(watch->of_seen.ctx, found);
}

/* The scan has let go of the lock. */
static void tell_unlocked(const struct lbl_conntrack *conntrack)
{
	if (conntrack->watch.unlocked)
		conntrack->watch.unlocked(conntrack->watch.of_seen.ctx);
}

static int remember(void *ctx, const struct lbl_connection *found, size_t n)
{
	struct scan *scan = ctx;
	struct lbl_conntrack *conntrack = scan->conntrack;
	bool stopping = false;
	size_t i, end;

	for (i = 0; i < n && !stopping; i = end) {
		end = n - i > ADDED_PER_LOCK ? i + ADDED_PER_LOCK : n;
		pthread_mutex_lock(&conntrack->lock);
		for (; i < end; i++) {
			if (is_wanted(conntrack, &found[i]))
				lbl_seen_add(&conntrack->seen, &found[i]);
		}
		stopping = scan->by_thread && conntrack->stopping;
		pthread_mutex_unlock(&conntrack->lock);
		tell_unlocked(conntrack);
	}
	scan->n += (int64_t)n;
	return stopping ? -ECANCELED : 0;
}

static void sweep(struct lbl_conntrack *conntrack)
{
	uint32_t swept = 0;
	bool more;

	do {
		pthread_mutex_lock(&conntrack->lock);
		more = lbl_seen_sweep(&conntrack->seen, &swept);
		pthread_mutex_unlock(&conntrack->lock);
		tell_unlocked(conntrack);
	} while (more);
}

static void begin_scan(struct lbl_conntrack *conntrack)
{
	pthread_mutex_lock(&conntrack->lock);
	while (conntrack->seen.scanning)
		pthread_cond_wait(&conntrack->changed, &conntrack->lock);
	lbl_seen_begin(&conntrack->seen, lbl_now_ns());
	pthread_mutex_unlock(&conntrack->lock);
}

static void end_scan(struct lbl_conntrack *conntrack, int err)
{
	pthread_mutex_lock(&conntrack->lock);
	lbl_seen_end(&conntrack->seen);
	if (!err) {
		conntrack->stats.scans++;
	} else if (err != -ECANCELED) {
		conntrack->stats.failures++;
		conntrack->stats.error = -err;
	}
	pthread_cond_broadcast(&conntrack->changed);
	pthread_mutex_unlock(&conntrack->lock);
}

static int64_t run_scan(struct lbl_conntrack *conntrack, bool by_thread)
{
	struct scan scan = { conntrack, by_thread, 0 };
	int err;

	begin_scan(conntrack);
	err = lbl_entries_walk(&conntrack->entries, remember, &scan);
	if (!err)
		sweep(conntrack);
	end_scan(conntrack, err);
	return err ? err : scan.n;
}

int64_t lbl_conntrack_scan(struct lbl_conntrack *conntrack)
{
	return run_scan(conntrack, false);
}

void lbl_conntrack_visit(struct lbl_conntrack *conntrack, const struct lbl_seen_watch *visitor)
{
	uint32_t visited = 0;
	bool more;

	do {
		pthread_mutex_lock(&conntrack->lock);
		more = lbl_seen_visit(&conntrack->seen, &visited, visitor);
		pthread_mutex_unlock(&conntrack->lock);
	} while (more);
}

void lbl_conntrack_stats(struct lbl_conntrack *conntrack, struct lbl_conntrack_stats *ret)
{
	pthread_mutex_lock(&conntrack->lock);
	*ret = conntrack->stats;
	ret->span_ns = conntrack->seen.span_ns;
	ret->remembered = conntrack->seen.n;
	ret->forgotten = conntrack->seen.forgotten;
	ret->doubled = conntrack->seen.doubled;
	ret->stayed = conntrack->seen.stayed;
	ret->moved = conntrack->seen.moved;
	pthread_mutex_unlock(&conntrack->lock);
}

/* ---- the thread ---- */

/* Wait until the next scan is due. Returns false if the thread is to stop. */
static bool wait_for_turn(struct lbl_conntrack *conntrack, uint64_t began_ns, uint64_t cost_ns)
{
	uint64_t interval = conntrack->interval_ns;
	bool go_on;
	int err = 0;

	if (interval < SCAN_SHARE * cost_ns)
		interval = SCAN_SHARE * cost_ns;
	pthread_mutex_lock(&conntrack->lock);
	conntrack->stats.interval_ns = interval;
	while (!conntrack->stopping && err != ETIMEDOUT)
		err = lbl_cond_wait(&conntrack->changed, &conntrack->lock, began_ns + interval);
	go_on = !conntrack->stopping;
	pthread_mutex_unlock(&conntrack->lock);
	return go_on;
}

/* start() makes the first scan itself, so that it knows the connections that are open by then. */
static void *scan_thread(void *arg)
{
	struct lbl_conntrack *conntrack = arg;
	uint64_t began_ns = lbl_now_ns(), cost_ns = 0;

	pthread_setname_np(pthread_self(), "lbl-scan");
	while (wait_for_turn(conntrack, began_ns, cost_ns)) {
		uint64_t before = lbl_cpu_ns();

		began_ns = lbl_now_ns();
		run_scan(conntrack, true);
		cost_ns = lbl_cpu_ns() - before;
	}
	return NULL;
}

static int start_thread(struct lbl_conntrack *conntrack)
{
	int err;

	conntrack->stopping = false;
	err = lbl_thread_start(&conntrack->thread, scan_thread, conntrack);
	conntrack->threaded = !err;
	return err;
}

static void stop_thread(struct lbl_conntrack *conntrack)
{
	if (!conntrack->threaded)
		return;
	pthread_mutex_lock(&conntrack->lock);
	conntrack->stopping = true;
	pthread_cond_broadcast(&conntrack->changed);
	pthread_mutex_unlock(&conntrack->lock);
	pthread_join(conntrack->thread, NULL);
	conntrack->threaded = false;
}

/* What was remembered is of no use after a time without scans. */
static void clear(struct lbl_conntrack *conntrack)
{
	pthread_mutex_lock(&conntrack->lock);
	lbl_seen_clear(&conntrack->seen);
	pthread_mutex_unlock(&conntrack->lock);
}

int lbl_conntrack_begin(struct lbl_conntrack *conntrack, struct lbl_conntrack_use *ret)
{
	int err = 0;

	pthread_mutex_lock(&conntrack->control);
	if (!conntrack->threaded) {
		clear(conntrack);
		err = start_thread(conntrack);
	}
	if (!err) {
		conntrack->users++;
		lbl_ref(&conntrack->refs);
		*ret = (struct lbl_conntrack_use){ conntrack, conntrack->forks };
	}
	pthread_mutex_unlock(&conntrack->control);
	return err;
}

void lbl_conntrack_end(const struct lbl_conntrack_use *use)
{
	struct lbl_conntrack *conntrack = use->conntrack;

	if (!conntrack)
		return;
	pthread_mutex_lock(&conntrack->control);
	if (use->forks == conntrack->forks && !--conntrack->users) {
		stop_thread(conntrack);
		clear(conntrack);
	}
	pthread_mutex_unlock(&conntrack->control);
	lbl_conntrack_free(conntrack);
}

void lbl_conntrack_drop(struct lbl_conntrack *conntrack)
{
	pthread_mutex_lock(&conntrack->control);
	stop_thread(conntrack);
	pthread_mutex_unlock(&conntrack->control);
	begin_scan(conntrack);
	sweep(conntrack);
	end_scan(conntrack, -ECANCELED);
}

/* ---- births ---- */

/*
 * The map has entries per protocol, but events of such formats lack it. If two connections could be
 * meant, none is.
 */
static uint64_t find_created_ns(void *ctx, const struct lbl_decoded_event *decoded)
{
	static const uint8_t protocols[] = { IPPROTO_TCP, IPPROTO_UDP };
	enum { N = sizeof(protocols) };
	struct lbl_connection event = { .client_port = decoded->client_port,
					.backend_port = decoded->event.port,
					.vip_port = decoded->vip_port },
			      looks[N];
	struct lbl_conntrack *conntrack = ctx;
	uint64_t created_ns = 0;
	bool there[N];
	uint32_t n = 0;
	size_t i;

	memcpy(event.client_addr, decoded->client_addr, sizeof(event.client_addr));
	memcpy(event.backend_addr, decoded->event.addr, sizeof(event.backend_addr));
	memcpy(event.vip_addr, decoded->vip_addr, sizeof(event.vip_addr));
	for (i = 0; i < N; i++) {
		looks[i] = event;
		looks[i].protocol = protocols[i];
		there[i] = !lbl_entries_lookup(&conntrack->entries, &looks[i]);
	}
	pthread_mutex_lock(&conntrack->lock);
	for (i = 0; i < N; i++) {
		event.protocol = protocols[i];
		n += lbl_seen_close(&conntrack->seen, &event, there[i] ? &looks[i] : NULL,
				    decoded->event.timestamp_ns, &created_ns) != LBL_SEEN_NONE;
	}
	pthread_mutex_unlock(&conntrack->lock);
	return n == 1 ? created_ns : 0;
}

static void use_birth(void *ctx, const struct lbl_decoded_event *decoded)
{
	find_created_ns(ctx, decoded);
}

struct lbl_birth_source lbl_conntrack_births(struct lbl_conntrack *conntrack)
{
	return (struct lbl_birth_source){ find_created_ns, conntrack, use_birth };
}
