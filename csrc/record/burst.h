/* SPDX-License-Identifier: MIT */
/*
 * The fast path: bursts of our own events, all together in stages. Each is short, so that the
 * processor has many events in hand at once, and asks for the memory that the next one needs, so
 * that the waits of a whole burst overlap instead of adding up. Everything else takes the slow
 * path, lbl_shard_record().
 */
#ifndef LBL_RECORD_BURST_H
#define LBL_RECORD_BURST_H

#include "record/shard.h"

/*
 * With the lock held: what lbl_shard_record() does for each of 1 to LBL_BURST_MAX events of
 * LBL_EVENT_BYTES, LBL_EVENT_STRIDE apart.
 */
void lbl_shard_record_burst(struct lbl_shard *shard, const void *first, uint32_t n);

/* A shard as a stream's sink: bursts in stages, all else one by one. */
extern const struct lbl_sink_ops lbl_shard_ops;

/* Set from the CPU's features; tests override it. */
extern bool lbl_use_avx512;

#endif
