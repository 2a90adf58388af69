/* SPDX-License-Identifier: MIT */
/* Opening and closing streams, what feeds a ring in memory, and a stream's statistics. */
#ifndef LBL_STREAM_OPEN_H
#define LBL_STREAM_OPEN_H

#include <stdint.h>

/* cdef: begin */
struct lbl_stream;

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

int lbl_stream_stats(struct lbl_stream *stream, struct lbl_stream_stats *ret);
/* cdef: end */

#endif
