/* SPDX-License-Identifier: MIT */
/*
 * What looks at a conntrack map remember per connection. Some balancers overwrite an entry's
 * creation time with later packets' times, so the earliest one that was ever seen counts. The caller
 * holds a lock; all but lbl_seen_clear() take a short, bounded time.
 */
#ifndef LBL_SOURCE_SEEN_H
#define LBL_SOURCE_SEEN_H

#include "source/entries.h"

enum {
	LBL_SEEN_MAX = 1 << 20, /* connections remembered */
	LBL_SEEN_CHUNK = 1 << 10, /* of them, that are allocated together */
};

struct lbl_seen_chunk;

struct lbl_seen {
	uint32_t *heads; /* of chains, by hash; 0 = empty */
	uint32_t mask;
	uint64_t seed; /* secret, so that no client chooses what collides */
	struct lbl_seen_chunk *chunks[LBL_SEEN_MAX / LBL_SEEN_CHUNK];
	uint32_t n_used, free; /* records used so far; the first of the free ones, 0 = none */
	uint32_t n; /* connections remembered */
	uint32_t scan; /* number of the last scan */
	bool scanning; /* it is under way */
	uint64_t scan_ns; /* when it began */
	bool stayed, moved; /* what creation times did while packets came; moving weighs more */
	uint64_t forgotten; /* connections for which there was no room */
};

/* Prepare for a map of `max_entries`. Returns 0 or -ENOMEM. */
int lbl_seen_init(struct lbl_seen *seen, uint32_t max_entries);
/* Forget all connections, and free their memory. */
void lbl_seen_clear(struct lbl_seen *seen);
void lbl_seen_destroy(struct lbl_seen *seen);

/* Begin a scan at `now_ns`, CLOCK_MONOTONIC. */
void lbl_seen_begin(struct lbl_seen *seen, uint64_t now_ns);
/* The scan has found this connection. */
void lbl_seen_add(struct lbl_seen *seen, const struct lbl_connection *found);
/*
 * After a scan that has found all: notice which connections have vanished, and forget those that
 * vanished long ago. Call it with `*at` 0 at first, until it returns false.
 */
bool lbl_seen_sweep(struct lbl_seen *seen, uint32_t *at);
void lbl_seen_end(struct lbl_seen *seen);

enum lbl_seen_close {
	LBL_SEEN_NONE, /* there is no such connection, or its close has come already */
	LBL_SEEN_UNKNOWN, /* there is one, but its creation time is not known */
	LBL_SEEN_BORN, /* `created_ns` is known */
};

/*
 * Which connection did a closed event of `ended_ns` end? `event` has its tuple and VIP, `look` what
 * the map has for this tuple at the moment, NULL if nothing. The connection's birth is then used up:
 * no later event finds it.
 */
enum lbl_seen_close lbl_seen_close(struct lbl_seen *seen, const struct lbl_connection *event,
				   const struct lbl_connection *look, uint64_t ended_ns,
				   uint64_t *created_ns);

#endif
