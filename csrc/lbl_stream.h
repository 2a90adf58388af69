/* SPDX-License-Identifier: MIT */
/* What a stream is made of, and what it and those who are told of its events call of each other. */
#ifndef LBL_STREAM_H
#define LBL_STREAM_H

#include "lbl_ring.h"

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

/* lbl_drain.c: hand all that is in the ring now to all who are told, in the caller's thread. */
void lbl_drain(struct lbl_stream *stream);

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

/* lbl_queue.c */
void lbl_queue_push(struct lbl_queue *queue, const void *data, uint32_t len);

#endif
