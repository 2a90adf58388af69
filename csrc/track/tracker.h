/* SPDX-License-Identifier: MIT */
/*
 * A tracker: per-backend histograms of the streams that it is started on. All functions except
 * lbl_tracker_free() are thread-safe.
 */
#ifndef LBL_TRACK_TRACKER_H
#define LBL_TRACK_TRACKER_H

#include "record/shard.h"
#include "source/conntrack.h"
#include "stream/ledger.h"

/* cdef: begin */
struct lbl_tracker;

/*
 * Create a tracker. `buckets` has an entry per enum lbl_metric, NULL for each latency not to
 * record; lifetimes are required. Backends beyond `max_backends` (1 to LBL_BACKENDS_MAX) of each
 * stream, and beyond as many that the program adds, share the overflow backend. Takes references to
 * the buckets. -EINVAL, or -ENOMEM.
 */
int lbl_tracker_new(struct lbl_buckets *const *buckets, uint32_t max_backends,
		    struct lbl_tracker **ret);
void lbl_tracker_free(struct lbl_tracker *tracker);

/*
 * Return the number of a proxy's name of `len` bytes, added if new: 1 to 65535; or 0, the overflow
 * backend's, if all are in use. -ENOMEM.
 */
int lbl_tracker_name(struct lbl_tracker *tracker, const char *name, size_t len);

/* Return the number of a known name, or -ENOENT. */
int lbl_tracker_find_name(struct lbl_tracker *tracker, const char *name, size_t len);

/*
 * Return the text of a name's number, not terminated, and its length in `*len`; NULL if the number
 * is unknown. The text lives as long as the tracker.
 */
const char *lbl_tracker_name_text(struct lbl_tracker *tracker, uint16_t name, size_t *len);

enum { LBL_ALL_STREAMS = -1 };

/*
 * Maps events to a proxy's name. Of a proxy id the last entry counts; a VIP has at most one for each
 * stream. A proxy id without an entry is named "proxy-<id>".
 */
struct lbl_proxy {
	const char *name;
	size_t name_bytes;
	int32_t stream; /* whose events: a number in the order of the start, or LBL_ALL_STREAMS */
	uint16_t id; /* proxy_id of the event; not used with a VIP */
	bool has_vip; /* maps events whose format tells that the client addressed this VIP: */
	uint8_t vip_addr[16];
	uint16_t vip_port;
};

/*
 * Record the events of all `n` streams from now on; on failure, of none. The first proxy is all
 * streams' own, used for proxy id 0. `conntrack` may be NULL; it is scanned at once, and then until
 * the stop. Names are added only on success. -EALREADY while the tracker is running, -EBUSY if a
 * stream is given twice, -ENOSPC if a stream has too many sinks, -ECHILD for a stream from before a
 * fork(), -ENOMEM.
 */
int lbl_tracker_start(struct lbl_tracker *tracker, struct lbl_stream *const *streams, size_t n,
		      struct lbl_conntrack *conntrack, const struct lbl_proxy *proxies,
		      size_t n_proxies);

/*
 * Drain all streams once more and detach from them. Recorded data stays. In a child of fork() there
 * is nothing to stop.
 */
void lbl_tracker_stop(struct lbl_tracker *tracker);

/* Return whether the tracker records; false in a child of fork(). */
bool lbl_tracker_running(struct lbl_tracker *tracker);

/* Sums since the tracker was created, over all starts and stops. */
struct lbl_tracker_stats {
	struct lbl_stream_stats events;
	struct lbl_outcomes outcomes; /* events.received = opened + closed + periodic + malformed */
	uint64_t open_error; /* by how much a number of open connections can be off */
	uint64_t running; /* 1 or 0; 0 in a child of fork() */
	uint64_t created_ns; /* by CLOCK_REALTIME */
	uint64_t started_ns; /* when all counts per backend were 0: created or last reset */
	bool is_copy; /* in a child of fork(), until it starts by itself */
	uint16_t proxy; /* name's number of the last start's first proxy; 0 = never started */
};

/* Read the sums of one moment. Returns 0 or -errno. */
int lbl_tracker_stats(struct lbl_tracker *tracker, struct lbl_tracker_stats *ret);

/* Return the address space that a backend takes for each stream, in bytes. */
size_t lbl_tracker_row_bytes(const struct lbl_tracker *tracker);

/*
 * Clear all histograms and connection counts, and forget backends that have nothing open. If open
 * connections have an error, nothing is known to be open, and only what begins from now on will be.
 * An event recorded meanwhile counts at most once.
 */
void lbl_tracker_reset(struct lbl_tracker *tracker);
/* cdef: end */

#endif
