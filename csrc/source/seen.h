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
	LBL_SEEN_SWEPT = 256, /* of them, that lbl_seen_sweep() and _visit() look at in a call */
};

/* What scans notice of a connection. Times are CLOCK_MONOTONIC in ns. */
struct lbl_sighting {
	const struct lbl_connection *last; /* the last look */
	uint64_t birth_ns; /* the earliest creation time that was seen; 0 if none was */
	bool is_exact; /* the birth is no later packet's time, by what was known at the first look */
	uint64_t absent_ns; /* begin of the last scan before the first look; 0 if it is not known */
	uint64_t look_ns; /* begin of the scan that had the last look */
	uint64_t until_ns; /* when it had certainly ended; 0 if it has not */
	bool is_replaced; /* the next connection with the same tuple has its entry */
};

/* Told of connections, by callers of lbl_seen_...(), which hold the lock. */
struct lbl_seen_watch {
	void (*found)(void *ctx, const struct lbl_sighting *sighting);
	void *ctx;
};

struct lbl_seen_chunk;

struct lbl_seen {
	uint32_t *heads; /* of chains, by hash; 0 = empty */
	uint32_t mask;
	uint64_t seed; /* secret, so that no client chooses what collides */
	struct lbl_seen_chunk *chunks[LBL_SEEN_MAX / LBL_SEEN_CHUNK];
	uint32_t n_used, free; /* records used so far; the first of the free ones, 0 = none */
	uint32_t n; /* connections remembered */
	uint32_t last; /* number of the record that the scan has found last; 0 = none */
	uint32_t scan; /* number of the last scan */
	bool scanning; /* it is under way */
	uint64_t scan_ns; /* when it began */
	bool stayed, moved; /* what creation times did while packets came; moving weighs more */
	uint64_t forgotten; /* connections for which there was no room */
	uint64_t forgotten_before; /* the scan */
	uint64_t
		complete_ns; /* begin of the last scan that found and remembered all; 0 = none did */
	uint64_t doubled; /* looks at a second entry of a tuple in one scan, while watched */
	uint64_t
		span_ns; /* from the begin of the last complete scan but one to the end of the last */
	struct lbl_seen_watch
		watch; /* told of what appears and vanishes; all 0 if nobody watches */
};

/* Prepare for a map of `max_entries`. Returns 0 or -ENOMEM. */
int lbl_seen_init(struct lbl_seen *seen, uint32_t max_entries);
/* Nobody will tell of closes: a connection ends when it vanishes, and is forgotten then. */
void lbl_seen_set_watch(struct lbl_seen *seen, const struct lbl_seen_watch *watch);
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

/*
 * Visit what the last look found there, a few hundred per call: with `*at` 0 at first, until it
 * returns false.
 */
bool lbl_seen_visit(const struct lbl_seen *seen, uint32_t *at,
		    const struct lbl_seen_watch *visitor);

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
