/* SPDX-License-Identifier: MIT */
/* Opening and closing streams, and what feeds a ring in memory. */
#ifndef LBL_STREAM_OPEN_H
#define LBL_STREAM_OPEN_H

#include "stream/stream.h"

/* cdef: begin */
enum lbl_counted {
	LBL_NOT_COUNTED = -1, /* the producer does not count what it wanted to send */
	LBL_COUNTED_ELSEWHERE = -2, /* its counters map is given to another stream of its */
};

/*
 * Take over the BPF ring buffer `ring_fd`, to be its only consumer; `counters_fd` is its
 * producer's per-CPU map of struct lbl_counters, or of enum lbl_counted. Both are duplicated.
 * -EINVAL if they are maps of another kind, -EBUSY if another stream of this network namespace
 * consumes the ring.
 */
int lbl_stream_open(int ring_fd, int counters_fd, struct lbl_stream **ret);

/* The same ring in this process's memory, filled by lbl_stream_produce(). `bytes`: power of two. */
int lbl_stream_memory(uint32_t bytes, struct lbl_stream **ret);

/* The stream lives on, and drains, for as long as a tracker or queue is attached. */
void lbl_stream_free(struct lbl_stream *stream);

/* Append one record to a memory ring. -ENOSPC if it is full, which is counted as dropped; -ECHILD. */
int lbl_stream_produce(struct lbl_stream *stream, const void *data, uint32_t len);
/* cdef: end */

#endif
