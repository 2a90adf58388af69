/* SPDX-License-Identifier: MIT */
/* Steps of a burst for eight events at a time. Call them only if lbl_has_avx512() is true. */
#ifndef LBL_RECORD_BURST_AVX512_H
#define LBL_RECORD_BURST_AVX512_H

#include "record/columns.h"

bool lbl_has_avx512(void);
/* Decode the events up to a multiple of 8. Returns their number. */
uint32_t lbl_burst_decode_avx512(struct lbl_burst *burst);
/*
 * Read latencies besides the lifetime of the events up to a multiple of 8. Returns their number, or
 * 0 if this file does not know one of the latencies.
 */
uint32_t lbl_burst_read_avx512(struct lbl_burst *burst, const enum lbl_metric *metrics,
			       uint32_t n_metrics);
/* Whether the keys of all events are those of their backends. */
bool lbl_burst_same_keys_avx512(const struct lbl_burst *burst);

#endif
