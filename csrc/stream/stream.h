/* SPDX-License-Identifier: MIT */
/* What a stream is made of, and what it and those who are told of its events call of each other. */
#ifndef LBL_STREAM_STREAM_H
#define LBL_STREAM_STREAM_H

#include <pthread.h>

#include "lbl_abi.h"
#include "base/fork.h"
#include "stream/open.h"
#include "stream/ring.h"

/* cdef: begin */
/* Consume what is in the ring now, in the caller's thread. Returns how many records; -ECHILD. */
int64_t lbl_stream_drain(struct lbl_stream *stream);

/* False in a child of fork(): the stream and its thread are the parent's. */
bool lbl_stream_alive(const struct lbl_stream *stream);
/* cdef: end */

struct lbl_queue;
struct lbl_shard;

enum { LBL_SINKS_MAX = 16 };

/*
 * `control` guards who is attached and the thread; `lock`, within it, the ring; `producing` the
 * other end of a ring in memory.
 */
struct lbl_stream {
	struct lbl_fork_entry fork;
	int refs;
	pthread_mutex_t control, lock, producing;
	struct lbl_ring ring;
	int ring_fd, counters_fd, claim_fd, epoll_fd, wake_fd;
	pthread_t thread;
	bool running, stopping, orphaned;
	struct lbl_shard *shards[LBL_SINKS_MAX];
	struct lbl_queue *queues[LBL_SINKS_MAX];
	uint32_t n_shards, n_queues;
	uint64_t received, corrupt, fill_max, consumed_before;
	struct lbl_counters produced; /* of a ring in memory */
};

/* lbl_stream.c: wake the drain thread, stop it, and what a fork must do. */
void lbl_stream_wake(struct lbl_stream *stream);
void lbl_stream_stop(struct lbl_stream *stream);
void lbl_stream_handle_fork(struct lbl_fork_entry *entry, enum lbl_fork_phase phase);

/*
 * Tell a shard or queue of all events from now on. -ENOSPC if there is no room for another. Takes a
 * reference, which is dropped by lbl_stream_free() after detaching, without any lock held.
 */
int lbl_stream_attach(struct lbl_stream *stream, struct lbl_shard *shard);
int lbl_stream_attach_queue(struct lbl_stream *stream, struct lbl_queue *queue);
/* Drain once more, then tell it no more. */
void lbl_stream_detach(struct lbl_stream *stream, struct lbl_shard *shard);
void lbl_stream_detach_queue(struct lbl_stream *stream, struct lbl_queue *queue);

#endif
