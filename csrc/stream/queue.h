/* SPDX-License-Identifier: MIT */
/* A sink: a bounded queue of decoded events for one subscriber, which never blocks the drain. */
#ifndef LBL_STREAM_QUEUE_H
#define LBL_STREAM_QUEUE_H

#include "event/event.h"
#include "stream/stream.h"

/* cdef: begin */
struct lbl_queue;

enum { LBL_QUEUE_EVENTS_MAX = 0x7fffffff };

/*
 * Create a queue of `capacity` events, 1 to LBL_QUEUE_EVENTS_MAX. A full queue drops new events and
 * counts them. -EINVAL, -ENOMEM.
 */
int lbl_queue_new(uint32_t capacity, struct lbl_queue **ret);

/*
 * Unsubscribe from all streams and drop the events in the queue. Readers that wait return. Callable
 * from any thread, also twice.
 */
void lbl_queue_close(struct lbl_queue *queue);

/* Close the queue and its fd, and free it. No thread may use it any more. */
void lbl_queue_free(struct lbl_queue *queue);

/*
 * Copy the stream's events to the queue from now on. -ENOSPC if the stream has LBL_SINKS_MAX
 * sinks; -ECHILD in a child of fork(); -ENOMEM. Not thread-safe.
 */
int lbl_queue_subscribe(struct lbl_queue *queue, struct lbl_stream *stream);

/*
 * Move up to `n` events to `ret`, waiting up to `timeout_ms` (-1: for ever) for the first one.
 * Returns the number of events: 0 also if the queue is closed.
 */
int lbl_queue_pop(struct lbl_queue *queue, int timeout_ms, uint32_t n,
		  struct lbl_decoded_event *ret);
/*
 * Return an fd, made by the first call, that is readable while events wait and once the queue is
 * closed. It belongs to the queue: the caller waits for it, but neither reads nor closes it. Returns
 * -errno if the process can open no more files.
 */
int lbl_queue_fd(struct lbl_queue *queue);

/* Return the number of events that wait. */
uint32_t lbl_queue_waiting(struct lbl_queue *queue);

/* Return the number of events dropped so far. */
uint64_t lbl_queue_dropped(const struct lbl_queue *queue);
/* cdef: end */

#endif
