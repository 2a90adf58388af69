/* SPDX-License-Identifier: MIT */
/* A sink: a bounded queue of decoded events for one subscriber, which never blocks the drain. */
#ifndef LBL_STREAM_QUEUE_H
#define LBL_STREAM_QUEUE_H

#include "event/event.h"
#include "stream/stream.h"

/* cdef: begin */
struct lbl_queue;

/*
 * Create a queue of `capacity` events. A full queue drops new events and counts them. -EINVAL if
 * `capacity` is 0, -ENOMEM.
 */
int lbl_queue_new(uint32_t capacity, struct lbl_queue **ret);

/* Unsubscribe from all streams and free the queue. */
void lbl_queue_free(struct lbl_queue *queue);

/*
 * Copy the stream's events to the queue from now on. -ENOSPC if the queue or the stream is at its
 * limit; -ECHILD in a child of fork(). Not thread-safe.
 */
int lbl_queue_subscribe(struct lbl_queue *queue, struct lbl_stream *stream);

/*
 * Move up to `n` events to `ret`, waiting up to `timeout_ms` (-1: for ever) for the first one.
 * Returns the number of events.
 */
int lbl_queue_pop(struct lbl_queue *queue, int timeout_ms, uint32_t n,
		  struct lbl_decoded_event *ret);
/* Return the number of events dropped so far. */
uint64_t lbl_queue_dropped(const struct lbl_queue *queue);
/* cdef: end */

#endif
