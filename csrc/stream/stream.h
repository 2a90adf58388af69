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
#include "stream/counted.h"
#include "stream/drain.h"
#include "stream/ring.h"
#include "stream/sink.h"

/* cdef: begin */
struct lbl_stream;

/*
 * Drain the ring up to its current end, in the caller's thread. Returns the number of records, or
 * -ECHILD in a child of fork().
 */
int64_t lbl_stream_drain(struct lbl_stream *stream);

/* Return false in a child of fork(): the stream and its thread belong to the parent. */
bool lbl_stream_alive(const struct lbl_stream *stream);
/* cdef: end */

enum { LBL_SINKS_MAX = 32 };

/*
 * `control` guards the thread, and serializes attach and detach. `lock`, nested in it, guards the
 * ring's consumer side, the list of sinks and `counters`; `producing` guards the producer side of a
 * ring in memory. Who gives the stream another ring or other counters increments `generation`.
 */
struct lbl_stream {
	struct lbl_fork_entry fork;
	int refs;
	pthread_mutex_t control, lock, producing;
	struct lbl_ring ring;
	int ring_fd, claim_fd, epoll_fd, wake_fd;
	pthread_t thread;
	bool running, stopping, orphaned;
	struct lbl_sink *sinks[LBL_SINKS_MAX]; /* ascending serials */
	uint32_t n_sinks, n_reserved;
	struct lbl_drain_counts counts;
	struct lbl_counted *counters; /* of the ring's producers; NULL if unknown, or in memory */
	uint32_t generation; /* how often the ring or the counters were replaced */
	bool never_consumed; /* nothing had been taken off the ring when the stream got it */
	struct lbl_counters produced; /* of a ring in memory */
};

/* Wake the drain thread. Callable from any thread. */
void lbl_stream_wake(struct lbl_stream *stream);
/* Stop and join the drain thread; the caller holds `control` or the last reference. */
void lbl_stream_stop(struct lbl_stream *stream);
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
 * Reserving takes the place, which attaching or lbl_stream_release() gives back. An attached sink
 * can then fail only if no thread can be made: -EAGAIN.
 */
int lbl_stream_reserve(struct lbl_stream *stream);
void lbl_stream_release(struct lbl_stream *stream);
int lbl_stream_attach_reserved(struct lbl_stream *stream, struct lbl_sink *sink,
			       struct lbl_drain_counts *ret);

/* Drain once more, then remove the sink. `ret`: the stream's counts after the sink's last event. */
void lbl_stream_detach(struct lbl_stream *stream, struct lbl_sink *sink,
		       struct lbl_drain_counts *ret);

#endif
