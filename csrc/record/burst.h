/* SPDX-License-Identifier: MIT */
/*
 * The fast path: record a burst of our own events in short stages. Each stage works on many
 * independent events and prefetches the memory of the next, so that a burst's cache misses overlap.
 * Everything else takes the slow path, lbl_shard_record().
 */
#ifndef LBL_RECORD_BURST_H
#define LBL_RECORD_BURST_H

#include "record/shard.h"

/*
 * Do the same as lbl_shard_record() for each of `n` events of LBL_EVENT_BYTES, LBL_EVENT_STRIDE
 * apart, 1 to LBL_BURST_MAX. The caller holds the sink's lock.
 */
void lbl_shard_record_burst(struct lbl_shard *shard, const void *first, uint32_t n);

/* The operations of a shard as a sink. */
extern const struct lbl_sink_ops lbl_shard_ops;

/* Set from the CPU's features; tests override it. */
extern bool lbl_use_avx512;

#endif
