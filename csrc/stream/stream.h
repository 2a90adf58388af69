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
#include "stream/drain.h"
#include "stream/ring.h"
#include "stream/sink.h"

/* cdef: begin */
struct lbl_stream;

/* Consume what is in the ring now, in the caller's thread. Returns how many records; -ECHILD. */
int64_t lbl_stream_drain(struct lbl_stream *stream);

/* False in a child of fork(): the stream and its thread are the parent's. */
bool lbl_stream_alive(const struct lbl_stream *stream);
/* cdef: end */

enum { LBL_SINKS_MAX = 32 };

/*
 * `control` guards the thread and who may attach or detach; `lock`, within it, the ring and the
 * list of sinks; `producing` the other end of a ring in memory.
 */
struct lbl_stream {
	struct lbl_fork_entry fork;
	int refs;
	pthread_mutex_t control, lock, producing;
	struct lbl_ring ring;
	int ring_fd, counters_fd, claim_fd, epoll_fd, wake_fd;
	pthread_t thread;
	bool running, stopping, orphaned;
	struct lbl_sink *sinks[LBL_SINKS_MAX]; /* by serial */
	uint32_t n_sinks;
	struct lbl_drain_counts counts;
	bool counted; /* somebody knows what the producer wanted to send */
	uint64_t consumed_before; /* events that others took off the ring before us */
	uint64_t dropped_before; /* by the producer's count, as the stream was opened */
	struct lbl_counters produced; /* of a ring in memory; of an orphan's, as it was */
};

/* Wake the drain thread, stop it. */
void lbl_stream_wake(struct lbl_stream *stream);
void lbl_stream_stop(struct lbl_stream *stream);
void lbl_stream_handle_fork(struct lbl_fork_entry *entry, enum lbl_fork_phase phase);

/*
 * Feed a sink all events from now on, and say in `ret` what the stream had counted before the first
 * of them. -ENOSPC if there is no room for another; -ECHILD. Takes a reference, which is dropped by
 * lbl_stream_free() after detaching, without any lock held.
 */
int lbl_stream_attach(struct lbl_stream *stream, struct lbl_sink *sink,
		      struct lbl_drain_counts *ret);

/* Drain once more, then feed it no more. `ret`: what the stream has counted up to its last event. */
void lbl_stream_detach(struct lbl_stream *stream, struct lbl_sink *sink,
		       struct lbl_drain_counts *ret);

#endif
