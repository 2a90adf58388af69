/* SPDX-License-Identifier: MIT */
/*
 * A balancer's connection tracking map, which has the creation times that events lack. While
 * trackers use it, a thread scans it and remembers when each connection was created.
 */
#ifndef LBL_SOURCE_CONNTRACK_H
#define LBL_SOURCE_CONNTRACK_H

#include "event/event.h"
#include "source/entries.h"
#include "source/seen.h"

/* cdef: begin */
struct lbl_conntrack;

/*
 * Open a hash map (plain or per-CPU, LRU or not) of a layout; NULL is for the 16- or 40-byte keys of
 * lbl_abi.h. The fd is duplicated. On success, `*ret` has one reference, which lbl_conntrack_free()
 * drops. -EINVAL for any other map, -ENOMEM.
 */
int lbl_conntrack_open(int fd, const struct lbl_layout *layout, struct lbl_conntrack **ret);
void lbl_conntrack_free(struct lbl_conntrack *conntrack);

/*
 * Look up the connection with the addresses, ports and protocol of `ret`, and fill in the rest.
 * Returns 0, -ENOENT or another -errno.
 */
int lbl_conntrack_lookup(const struct lbl_conntrack *conntrack, struct lbl_connection *ret);

/*
 * List all connections; the caller frees the array with lbl_connections_free(). One that is there
 * all the while comes exactly once. Returns the number, or -errno.
 */
int64_t lbl_conntrack_list(struct lbl_conntrack *conntrack, struct lbl_connection **ret);
void lbl_connections_free(struct lbl_connection *connections);

/*
 * Scan the map now, besides what the thread does, and remember what is found. Returns the number of
 * connections, or -errno.
 */
int64_t lbl_conntrack_scan(struct lbl_conntrack *conntrack);

struct lbl_conntrack_stats {
	uint64_t scans; /* that found all connections */
	uint64_t failures; /* scans that did not */
	int error; /* errno of the last failure */
	uint64_t interval_ns; /* from the thread's last scan to its next */
	uint64_t span_ns; /* from the begin of the last scan but one to the end of the last */
	uint64_t remembered; /* connections: those in the map, and some that left it */
	uint64_t forgotten; /* connections that there was no room to remember */
	uint64_t doubled; /* looks at a second entry of a tuple in one scan, if somebody watches */
	bool stayed; /* a connection's creation time stayed while packets came */
	bool moved; /* one moved: each look at the map may tell too late a time */
};

void lbl_conntrack_stats(struct lbl_conntrack *conntrack, struct lbl_conntrack_stats *ret);
/* cdef: end */

/* A use of the map. In a child of fork(), what the parent had begun is none of the child's. */
struct lbl_conntrack_use {
	struct lbl_conntrack *conntrack; /* NULL = none */
	uint32_t forks; /* before it began */
};

/*
 * Begin to use the map: a thread scans it about once per second from now on, until all uses end.
 * Takes a reference. The caller holds no lock. Returns 0, or -errno if there can be no thread.
 */
int lbl_conntrack_begin(struct lbl_conntrack *conntrack, struct lbl_conntrack_use *ret);
/* Drops the reference. Legal on a zeroed struct. */
void lbl_conntrack_end(const struct lbl_conntrack_use *use);

/* Who makes events of what scans find. Its context is that of `of_seen`. */
struct lbl_conntrack_watch {
	struct lbl_seen_watch of_seen; /* told under the lock */
	/* Return whether an entry counts, under the lock; NULL: all do. */
	bool (*wants)(void *ctx, const struct lbl_connection *found);
	/* Called after at most LBL_SEEN_SWEPT changes, without a lock, by the thread that scans. */
	void (*unlocked)(void *ctx);
};

/*
 * The same as lbl_conntrack_open() for a map that no tracker uses: somebody watches its scans, which
 * are `interval_ns` apart.
 */
int lbl_conntrack_open_watched(int fd, const struct lbl_layout *layout,
			       const struct lbl_conntrack_watch *watch, uint64_t interval_ns,
			       struct lbl_conntrack **ret);
/*
 * Stop the thread, and tell the watch that all connections have vanished; then call
 * lbl_conntrack_end().
 */
void lbl_conntrack_drop(struct lbl_conntrack *conntrack);
/* Visit the connections that the last look found there; the visitor is called under the lock. */
void lbl_conntrack_visit(struct lbl_conntrack *conntrack, const struct lbl_seen_watch *visitor);

/* Make a source of creation times, valid between begin and end. */
struct lbl_birth_source lbl_conntrack_births(struct lbl_conntrack *conntrack);

#endif
