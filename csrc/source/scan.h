/* SPDX-License-Identifier: MIT */
/*
 * A source for balancers that have a conntrack map, but send no events: what appears in the map and
 * vanishes from it between two scans becomes opened and closed events, in a ring in memory.
 */
#ifndef LBL_SOURCE_SCAN_H
#define LBL_SOURCE_SCAN_H

#include "source/ages.h"
#include "source/conntrack.h"
#include "stream/open.h"

/* cdef: begin */
struct lbl_scan;

/* Backends that count: the address's first `prefix` bits (of 128), and ports. */
struct lbl_scan_rule {
	uint8_t addr[16]; /* IPv4 as ::ffff:a.b.c.d */
	uint8_t prefix;
	uint16_t first_port, last_port, proxy_id;
};

/*
 * Scan the map `fd`, which is duplicated, once now and then every `interval_ns`; `layout` is NULL for
 * a documented one. The first rule that a backend matches tells its proxy; without rules, all count.
 * Events go to `stream`, a ring in memory. -EINVAL if the map does not fit the layout, or another
 * -errno.
 */
int lbl_scan_open(int fd, const struct lbl_layout *layout, struct lbl_stream *stream,
		  const struct lbl_scan_rule *rules, size_t n_rules, uint64_t interval_ns,
		  struct lbl_scan **ret);
/* Ends the connections that are open, with LBL_REASON_EVICTED and no creation time. */
void lbl_scan_close(struct lbl_scan *scan);

/* Scan now, besides what the thread does. Returns the number of entries, or -errno. */
int64_t lbl_scan_now(struct lbl_scan *scan);

struct lbl_scan_stats {
	struct lbl_conntrack_stats of_map;
	uint64_t open; /* connections that the last scan found */
	uint64_t
		older; /* of those that have vanished: older than the first scan, so of unknown age */
	uint64_t timed_out; /* vanished after LBL_SCAN_IDLE_S without a packet */
	uint64_t prompt; /* vanished sooner after a packet */
};

/* An entry that was idle for so long has timed out, if that is how most entries go. */
enum { LBL_SCAN_IDLE_S = 10 };

void lbl_scan_stats(struct lbl_scan *scan, struct lbl_scan_stats *ret);

/*
 * Count the open connections per backend, by age. `bounds` are in ns, ascending and inclusive. The
 * caller frees `ret` with lbl_ages_free(). Returns 0 or -ENOMEM.
 */
int lbl_scan_ages(struct lbl_scan *scan, const uint64_t *bounds, size_t n_bounds,
		  struct lbl_ages *ret);
/* cdef: end */

#endif
