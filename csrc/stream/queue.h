/* SPDX-License-Identifier: MIT */
/* A bounded queue of decoded events for one subscriber. */
#ifndef LBL_STREAM_QUEUE_H
#define LBL_STREAM_QUEUE_H

#include "event/event.h"
#include "stream/stream.h"

/* cdef: begin */
struct lbl_queue;

/* A queue that holds up to `capacity` events; while it is full it drops, and counts. */
int lbl_queue_new(uint32_t capacity, struct lbl_queue **ret);

/* Unsubscribes from all streams. */
void lbl_queue_free(struct lbl_queue *queue);

/* Copy the stream's events to the queue from now on. -ENOSPC if there are too many already. */
int lbl_queue_subscribe(struct lbl_queue *queue, struct lbl_stream *stream);

/* Take up to `n` events, waiting up to `timeout_ms` (-1: for ever) for the first. */
int lbl_queue_pop(struct lbl_queue *queue, int timeout_ms, uint32_t n,
		  struct lbl_decoded_event *ret);
uint64_t lbl_queue_dropped(const struct lbl_queue *queue);
/* cdef: end */

#endif
