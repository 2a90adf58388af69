/* SPDX-License-Identifier: MIT */
/*
 * A seqcount: one writer, and lock-free readers that retry if it wrote meanwhile. The count is odd
 * while the writer is at work.
 */
#ifndef LBL_BASE_SEQ_H
#define LBL_BASE_SEQ_H

#include "base/util.h"

static inline void lbl_seq_write_begin(uint32_t *seq)
{
	lbl_owner_add(seq, 1);
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

static inline void lbl_seq_write_end(uint32_t *seq)
{
	__atomic_store_n(seq, *seq + 1, __ATOMIC_RELEASE);
}

/* Pairs with lbl_seq_write_end(). */
static inline uint32_t lbl_seq_read_begin(const uint32_t *seq)
{
	return __atomic_load_n(seq, __ATOMIC_ACQUIRE);
}

/* Pairs with lbl_seq_write_begin(). */
static inline bool lbl_seq_read_retry(const uint32_t *seq, uint32_t begun)
{
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return begun & 1 || begun != READ_ONCE(seq);
}

#endif
