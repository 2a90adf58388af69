/* SPDX-License-Identifier: MIT */
/*
 * A stream: one ring buffer, the thread that drains it, and the list of sinks that it feeds. (An
 * EventStream in Python is several of these.)
 */
#ifndef LBL_STREAM_STREAM_H
#define LBL_STREAM_STREAM_H

#include <pthread.h>

#include "lbl_abi.h"
#include "base/fork.h"
#include "stream/claim.h"
#include "stream/counted.h"
#include "stream/drain.h"
#include "stream/inlet.h"
#include "stream/ring.h"
#include "stream/sink.h"
#include "stream/wish.h"

/* cdef: begin */
struct lbl_stream;

/*
 * Drain the ring up to its current end, in the caller's thread. Returns the number of records: 0 if
 * nobody is attached, since nothing is taken then. -ECHILD in a child of fork().
 */
int64_t lbl_stream_drain(struct lbl_stream *stream);

/* Return false in a child of fork(): the stream and its thread belong to the parent. */
bool lbl_stream_alive(const struct lbl_stream *stream);

/* Where a ring is pinned, so that the stream can go on with a ring that takes its place. */
struct lbl_pin {
	const char *path; /* absolute; NULL: the ring is known by other means, and not followed */
	bool in_array; /* an array of maps is pinned there, and this is: */
	uint32_t index; /* of the ring in it */
	const char *counters; /* pin of the counters map; NULL: it is looked for */
	bool keeps_counters; /* the counters map is known by other means, and not followed */
};

/* Return false if the pin is gone, or the ring that is pinned there is not taken up yet. */
bool lbl_stream_attached(const struct lbl_stream *stream);
/* cdef: end */

enum { LBL_SINKS_MAX = 32 };

/*
 * `control` guards the thread, and serializes attach and detach. `lock`, nested in it, guards the
 * ring's consumer side, the list of sinks and `counters`; `producing` guards the producer side of a
 * ring in memory. Each replacement counts in `counts.replaced`.
 */
struct lbl_stream {
	struct lbl_fork_entry fork;
	int refs;
	pthread_mutex_t control, lock, producing;
	struct lbl_ring ring;
	int ring_fd, epoll_fd, wake_fd;
	uint32_t map_id; /* of the ring */
	struct lbl_pin pin;
	bool attached; /* the ring is what the pin says */
	struct lbl_wish wish; /* for what the pin says, if that is claimed */
	uint64_t end_seen; /* where the ring ended when the thread last looked at the pin */
	struct lbl_claims claims; /* of the thread */
	pthread_t thread;
	bool running, stopping, orphaned;
	struct lbl_sink *sinks[LBL_SINKS_MAX]; /* ascending serials */
	uint32_t n_sinks, n_reserved;
	struct lbl_drain_counts counts;
	struct lbl_counted *counters; /* of the ring's producers; NULL if unknown, or in memory */
	bool consumes; /* it has begun, and so uses the counters */
	bool never_consumed; /* nothing had been taken off the ring when the stream got it */
	struct lbl_counters produced; /* of a ring in memory */
};

/* Wake the drain thread. Callable from any thread. */
void lbl_stream_wake(struct lbl_stream *stream);
/* Give the stream a ring and its counters. The caller is its thread, or has not started that yet. */
void lbl_stream_put(struct lbl_stream *stream, const struct lbl_inlet *inlet);
/* Begin with a ring that the thread has claimed: only then is it certain how far others consumed. */
void lbl_stream_begin(struct lbl_stream *stream);

/* Let an fd wake the thread; stop that. Returns 0 or -errno. */
int lbl_stream_watch(struct lbl_stream *stream, int fd);
void lbl_stream_unwatch(struct lbl_stream *stream, int fd);

void lbl_stream_handle_fork(struct lbl_fork_entry *entry, enum lbl_fork_phase phase);

/*
 * Feed all further events to a sink. `ret`: the stream's counts before the first of them. -ENOSPC
 * if the stream has LBL_SINKS_MAX sinks; -ECHILD in a child of fork(). Takes a reference, which the
 * caller drops with lbl_stream_free() after detaching, holding no lock.
 */
int lbl_stream_attach(struct lbl_stream *stream, struct lbl_sink *sink,
		      struct lbl_drain_counts *ret);

/*
 * The same in two steps, so that a sink can be attached to all of several streams or to none.
 * Reserving takes the place, which attaching or lbl_stream_release() gives back.
 */
int lbl_stream_reserve(struct lbl_stream *stream);
void lbl_stream_release(struct lbl_stream *stream);
void lbl_stream_attach_reserved(struct lbl_stream *stream, struct lbl_sink *sink,
				struct lbl_drain_counts *ret);

/* Drain once more, then remove the sink. `ret`: the stream's counts after the sink's last event. */
void lbl_stream_detach(struct lbl_stream *stream, struct lbl_sink *sink,
		       struct lbl_drain_counts *ret);

#endif
