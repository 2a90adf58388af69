/* SPDX-License-Identifier: MIT */
/*
 * The whole C interface that Python sees.
 *
 * Functions return 0 or a count, or a negative errno. Out parameters come last and are called
 * `ret`; they are written on success only. Every *_free() takes NULL. Times are nanoseconds unless
 * a name says otherwise. Functions are safe to call from several threads at once, except that an
 * object must not be used while or after it is freed. What an object needs of others it keeps
 * alive itself, so they may be freed in any order.
 */
#ifndef LBL_NATIVE_H
#define LBL_NATIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lbl_abi.h"

/* cdef: begin */

/* ---- Layout: where one histogram bucket ends and the next begins. Immutable once made. ---- */

struct lbl_layout;

/*
 * Merge `n` classic bounds (ns, ascending, each 1 us to 2^24 s) with the bounds of the native
 * histogram schema 6 into one set of slots. -EINVAL if the bounds are not ascending or out of
 * range, -ERANGE if more than two fall so close together that the index cannot tell them apart.
 */
int lbl_layout_new(const uint64_t *bounds, size_t n, struct lbl_layout **ret);
void lbl_layout_free(struct lbl_layout *layout);

/* How many slots there are; the last one is what lies above 2^24 s. */
uint32_t lbl_layout_slots(const struct lbl_layout *layout);

/* The slot that a duration falls into: upper bounds are inclusive, as `le` is. */
uint32_t lbl_layout_index(const struct lbl_layout *layout, uint64_t ns);

/* The slot's inclusive upper bound; UINT64_MAX for the last. */
uint64_t lbl_layout_upper(const struct lbl_layout *layout, uint32_t slot);

/* ---- What can be read off a histogram given as `n` (slot, count) pairs, slots ascending. ---- */

/* Cumulative counts at the layout's classic bounds, one each, +Inf not included. */
void lbl_hist_classic(const struct lbl_layout *layout, size_t n, const uint16_t *slots,
		      const uint64_t *counts, uint64_t *ret);

/*
 * The value at rank ceil(q * count), seconds, 0 <= q <= 1: the harmonic middle of its bucket, so
 * at most 0.55 % off between 1 us and 2^24 s. NaN for an empty histogram.
 */
double lbl_hist_percentile(const struct lbl_layout *layout, size_t n, const uint16_t *slots,
			   const uint64_t *counts, double q);

/*
 * Native histogram buckets of `schema` (-4 to 6): indexes and counts of at most `n` buckets, and
 * the count of the zero bucket (up to 2^-20 s). Returns how many there are.
 */
int lbl_hist_native(const struct lbl_layout *layout, int schema, size_t n, const uint16_t *slots,
		    const uint64_t *counts, int32_t *ret_index, uint64_t *ret_count,
		    uint64_t *ret_zero);

/* ---- Stream: one ring buffer, the thread that drains it, and who is told of its events. ---- */

struct lbl_stream;
struct lbl_queue;

struct lbl_stream_stats {
	uint64_t received; /* records taken off the ring */
	uint64_t corrupt; /* times the ring itself made no sense and was skipped to its end */
	uint64_t in_ring; /* records of our size that are waiting */
	uint64_t fill_bytes;
	uint64_t fill_max_bytes; /* the highest fill a drain has found */
	uint64_t size_bytes;
	uint64_t produced; /* by the producer's own count; 0 without counters */
	uint64_t dropped;
	uint64_t consumed_before; /* events that others took off the ring before us */
};

/*
 * Take over the BPF ring buffer `ring_fd`, to be its only consumer; `counters_fd` is its
 * producer's per-CPU map of struct lbl_counters, or -1. Both are duplicated. -EINVAL if they are
 * maps of another kind, -EBUSY if another stream of this network namespace consumes the ring.
 */
int lbl_stream_open(int ring_fd, int counters_fd, struct lbl_stream **ret);

/* The same ring in this process's memory, filled by lbl_stream_produce(). `bytes`: power of two. */
int lbl_stream_memory(uint32_t bytes, struct lbl_stream **ret);

/* The stream lives on, and drains, for as long as a tracker or queue is attached. */
void lbl_stream_free(struct lbl_stream *stream);

/* Append one record to a memory ring. -ENOSPC if it is full, which is counted as dropped; -ECHILD. */
int lbl_stream_produce(struct lbl_stream *stream, const void *data, uint32_t len);

/* Consume what is in the ring now, in the caller's thread. Returns how many records; -ECHILD. */
int64_t lbl_stream_drain(struct lbl_stream *stream);

int lbl_stream_stats(struct lbl_stream *stream, struct lbl_stream_stats *ret);

/* False in a child of fork(): the stream and its thread are the parent's. */
bool lbl_stream_alive(const struct lbl_stream *stream);

/* A queue that holds up to `capacity` events; while it is full it drops, and counts. */
int lbl_queue_new(uint32_t capacity, struct lbl_queue **ret);

/* Unsubscribes from all streams. */
void lbl_queue_free(struct lbl_queue *queue);

/* Copy the stream's events to the queue from now on. -ENOSPC if there are too many already. */
int lbl_queue_subscribe(struct lbl_queue *queue, struct lbl_stream *stream);

/* A decoded event of any of the layouts. */
struct lbl_seen {
	struct lbl_event event;
	uint8_t has_client; /* 64- and 72-byte events only: who, and the address they asked for */
	uint8_t client_addr[16];
	uint8_t vip_addr[16];
	uint16_t client_port;
	uint16_t vip_port;
};

/* Take up to `n` events, waiting up to `timeout_ms` (-1: for ever) for the first. */
int lbl_queue_pop(struct lbl_queue *queue, int timeout_ms, uint32_t n, struct lbl_seen *ret);
uint64_t lbl_queue_dropped(const struct lbl_queue *queue);

/* ---- Conntrack map: where a lifetime is looked up that the events do not tell. ---- */

struct lbl_conntrack;

/*
 * Read connections from a hash map (plain or per-CPU, LRU or not) with 16- or 40-byte keys as in
 * lbl_abi.h. The fd is duplicated. -EINVAL for any other map.
 */
int lbl_conntrack_open(int fd, struct lbl_conntrack **ret);
void lbl_conntrack_free(struct lbl_conntrack *conntrack);

struct lbl_connection {
	uint8_t client_addr[16];
	uint8_t backend_addr[16];
	uint16_t client_port;
	uint16_t backend_port;
	uint8_t protocol;
	uint64_t created_ns;
	uint64_t last_seen_ns;
	uint64_t packets_fwd;
	uint64_t packets_rev;
	uint64_t bytes_fwd;
	uint64_t bytes_rev;
};

/* Fill in the connection that has the key fields of `ret`. 0, or -ENOENT. */
int lbl_conntrack_get(const struct lbl_conntrack *conntrack, struct lbl_connection *ret);

/*
 * All connections of the map, to be freed with lbl_connections_free(). Returns how many. Entries
 * that come or go meanwhile may be missed or come twice.
 */
int64_t lbl_conntrack_list(const struct lbl_conntrack *conntrack, struct lbl_connection **ret);
void lbl_connections_free(struct lbl_connection *connections);

/* ---- Tracker: per-backend histograms. ---- */

struct lbl_tracker;
struct lbl_backend;

struct lbl_tracker_stats {
	uint64_t opened;
	uint64_t closed; /* = recorded + unmatched + rejected + ignored */
	uint64_t periodic;
	uint64_t malformed; /* records of no known length or type */
	uint64_t recorded;
	uint64_t unmatched; /* closed, but nobody knows when it was created */
	uint64_t rejected; /* closed before it was created, or absurdly long after */
	uint64_t ignored; /* health probes and failed connects */
	uint64_t flows_full; /* connections forgotten, since too many are open */
	uint64_t observed; /* lbl_backend_observe() */
};

/* More than `max_backends` backends share one, the overflow backend. */
int lbl_tracker_new(struct lbl_layout *layout, uint32_t max_backends, struct lbl_tracker **ret);
void lbl_tracker_free(struct lbl_tracker *tracker);

/*
 * The number of a proxy's name, the same whenever the same `len` bytes are given; 1 to 65535, since
 * 0 is the overflow's. -ENOSPC beyond that.
 */
int lbl_tracker_name(struct lbl_tracker *tracker, const char *name, size_t len);

/* The same, or -ENOENT if the name was never given a number. */
int lbl_tracker_find_name(struct lbl_tracker *tracker, const char *name, size_t len);

/* The bytes behind a number, in `*len`; they live as long as the tracker. NULL if there is none. */
const char *lbl_tracker_name_text(struct lbl_tracker *tracker, uint16_t name, size_t *len);

/* Which proxy an event belongs to. An id that nobody named is called "proxy-<id>". */
struct lbl_proxy {
	uint16_t id; /* proxy_id of the event */
	uint16_t name; /* of lbl_tracker_name() */
	bool has_vip; /* also of 64- and 72-byte events that were addressed to this: */
	uint8_t vip_addr[16];
	uint16_t vip_port;
};

/*
 * Record the stream's events from now on. `conntrack` may be NULL. -EBUSY if the tracker is
 * attached to this stream already.
 */
int lbl_tracker_attach(struct lbl_tracker *tracker, struct lbl_stream *stream,
		       struct lbl_conntrack *conntrack, const struct lbl_proxy *proxies, size_t n);

/* Drain all streams once more and detach from them. What was recorded stays. */
void lbl_tracker_detach(struct lbl_tracker *tracker);

/*
 * A backend to observe durations of, while the tracker lives; the overflow backend if there are
 * too many. `addr` as in lbl_event.
 */
int lbl_tracker_backend(struct lbl_tracker *tracker, uint16_t name, const uint8_t *addr,
			uint16_t port, struct lbl_backend **ret);

void lbl_backend_free(struct lbl_backend *backend);

/* Record seconds. -EINVAL for NaN, infinities, negatives and more than 2^62 ns; -ENOMEM. */
int lbl_backend_observe(struct lbl_backend *backend, double seconds);
/* The same, but -EBUSY if it would have to wait for another thread. */
int lbl_backend_try_observe(struct lbl_backend *backend, double seconds);

/*
 * Record all of `seconds`, or none if one of them is invalid: then -EINVAL, and which in `ret`.
 * -ENOMEM if memory ran out and some were not recorded.
 */
int lbl_backend_observe_many(struct lbl_backend *backend, const double *seconds, size_t n,
			     size_t *ret);

void lbl_tracker_stats(struct lbl_tracker *tracker, struct lbl_tracker_stats *ret);

/* Forget all histograms and counts of backends. Nothing recorded meanwhile is counted twice. */
void lbl_tracker_reset(struct lbl_tracker *tracker);

/* ---- Snapshot: all backends of a tracker at one time, merged over its streams. ---- */

struct lbl_row {
	uint16_t name; /* of the proxy; 0: the overflow backend */
	uint16_t port;
	uint8_t addr[16];
	uint64_t count;
	uint64_t sum_lo; /* ns, 128 bits */
	uint64_t sum_hi;
	uint64_t opened; /* since a reset, and those open then */
	uint64_t open; /* now, of those seen to open by a stream that is attached */
	uint64_t closed[7]; /* by enum lbl_reason; health probes not included */
	uint64_t probes;
	uint64_t first; /* its pairs are [first, first + n) of the snapshot's */
	uint32_t n;
};

struct lbl_snapshot {
	struct lbl_row *rows;
	size_t n_rows;
	uint16_t *slots;
	uint64_t *counts;
	size_t n_pairs;
};

int lbl_tracker_snapshot(struct lbl_tracker *tracker, struct lbl_snapshot **ret);

/* The same with one row at the most: the backend asked for. */
int lbl_tracker_snapshot_one(struct lbl_tracker *tracker, uint16_t name, const uint8_t *addr,
			     uint16_t port, struct lbl_snapshot **ret);
void lbl_snapshot_free(struct lbl_snapshot *snapshot);

/* ---- BPF maps by what people know them by: fds, to be closed by the caller. ---- */

/* -EINVAL if the path is not in a bpffs. */
int lbl_map_by_path(const char *path);
int lbl_map_by_id(uint32_t id);
/* -ENOENT if no map has the name, -ENOTUNIQ if several have. The kernel keeps 15 bytes of it. */
int lbl_map_by_name(const char *name);
/*
 * The map in an array of maps at an index. -ENOENT if there is none, -ERANGE past the array's end,
 * -EINVAL if the map is no array of maps.
 */
int lbl_map_inner(int fd, uint32_t index);
bool lbl_map_is_called(int fd, const char *name);
int64_t lbl_map_id(int fd);
/* The map called lbl_counters of a program that uses this ring. -ENOENT if there is none. */
int lbl_counters_of(int ring_fd);

/* ---- Libraries. ---- */

/* libbpf's version as 1000 * major + minor. */
int lbl_libbpf_version(void);

/* cdef: end */

#endif
