/* SPDX-License-Identifier: MIT */
/*
 * A balancer's connection tracking map, which has the creation times that events lack. While
 * trackers use it, a thread scans it and remembers when each connection was created.
 */
#ifndef LBL_SOURCE_CONNTRACK_H
#define LBL_SOURCE_CONNTRACK_H

#include "event/event.h"
#include "source/entries.h"

/* cdef: begin */
struct lbl_conntrack;

/*
 * Open a hash map (plain or per-CPU, LRU or not) with the 16- or 40-byte keys of lbl_abi.h. The fd
 * is duplicated. On success, `*ret` has one reference, which lbl_conntrack_free() drops. -EINVAL
 * for any other map, -ENOMEM.
 */
int lbl_conntrack_open(int fd, struct lbl_conntrack **ret);
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
	uint64_t remembered; /* connections: those in the map, and some that left it */
	uint64_t forgotten; /* connections that there was no room to remember */
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

/* Make a source of creation times, valid between begin and end. */
struct lbl_birth_source lbl_conntrack_births(struct lbl_conntrack *conntrack);

#endif
