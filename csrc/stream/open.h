/* SPDX-License-Identifier: MIT */
/* Open and close streams, and write records into a ring in memory. */
#ifndef LBL_STREAM_OPEN_H
#define LBL_STREAM_OPEN_H

#include "stream/stream.h"

/* cdef: begin */
/*
 * Open the BPF ring buffer `ring_fd` as its only consumer. `counters_fd` is the producer's per-CPU
 * map of struct lbl_counters, or -1 if it has none; streams may share one. A map that may not be read
 * is taken for none. Both fds are duplicated. If `pin` has a path, the stream follows what is pinned
 * there. -EINVAL if a map has another type; -EBUSY if the ring has a consumer, in this process or
 * another, whatever namespaces it is in: `holder` says which; or another -errno.
 */
int lbl_stream_open(int ring_fd, int counters_fd, const struct lbl_pin *pin,
		    struct lbl_holder *holder, struct lbl_stream **ret);

/* Create a ring of `bytes` (a power of two) in memory, which lbl_stream_produce() fills. */
int lbl_stream_memory(uint32_t bytes, struct lbl_stream **ret);

/*
 * Drop the caller's reference. An attached tracker or queue keeps the stream alive, and draining.
 */
void lbl_stream_free(struct lbl_stream *stream);

/*
 * Append a record of `len` bytes to a ring in memory. Thread-safe. -ENOSPC if the ring is full,
 * which counts as dropped; -EINVAL if `len` can never fit or the ring is not in memory; -ECHILD in
 * a child of fork().
 */
int lbl_stream_produce(struct lbl_stream *stream, const void *data, uint32_t len);
/* cdef: end */

#endif
