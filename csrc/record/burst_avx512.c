// SPDX-License-Identifier: MIT
#include "record/burst_avx512.h"
#include "hist/buckets.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512dq,avx512vl")))

bool lbl_has_avx512(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
	       __builtin_cpu_supports("avx512vl");
}

/* Eight events in columns, one lane per event. */
struct columns {
	__m512i word; /* type, reason, protocol, flags, backend_id */
	__m512i timestamp, created;
};

/* Load the first 32 bytes of two events into one vector. */
AVX512 static inline __m512i load_two(const char *a, const char *b)
{
	__m512i low = _mm512_castsi256_si512(_mm256_loadu_si256((const void *)a));

	return _mm512_inserti64x4(low, _mm256_loadu_si256((const void *)b), 1);
}

/* Transpose: first pairs of events within 128-bit lanes, then whole lanes. */
AVX512 static inline struct columns load_columns(const char *event)
{
	__m512i even = load_two(event, event + 128), odd = load_two(event + 64, event + 192);
	__m512i even4 = load_two(event + 256, event + 384);
	__m512i odd4 = load_two(event + 320, event + 448);
	__m512i low = _mm512_unpacklo_epi64(even, odd), high = _mm512_unpackhi_epi64(even, odd);
	__m512i low4 = _mm512_unpacklo_epi64(even4, odd4);
	__m512i high4 = _mm512_unpackhi_epi64(even4, odd4);

	return (struct columns){
		.word = _mm512_shuffle_i64x2(low, low4, 0x88),
		.timestamp = _mm512_shuffle_i64x2(high, high4, 0x88),
		.created = _mm512_shuffle_i64x2(low, low4, 0xdd),
	};
}

AVX512 static inline __m512i low_half(__m512i words)
{
	return _mm512_and_si512(words, _mm512_set1_epi64(0xffffffff));
}

AVX512 static inline __m512i reasons(const struct columns *events)
{
	return _mm512_and_si512(_mm512_srli_epi64(events->word, 8), _mm512_set1_epi64(0xff));
}

/* Same conditions as decode() in burst.c. */
AVX512 static inline __mmask8 are_closed(const struct columns *events, __m512i ns)
{
	const __m512i must_match = _mm512_set1_epi64(0xff | (uint64_t)LBL_FLAG_PROBE << 24);
	__m512i differs = _mm512_xor_si512(events->word, _mm512_set1_epi64(LBL_CLOSED));
	__m512i before = _mm512_sub_epi64(events->created, _mm512_set1_epi64(1));
	__mmask8 closed = _mm512_testn_epi64_mask(differs, must_match);

	closed = _mm512_mask_cmplt_epu64_mask(closed, reasons(events),
					      _mm512_set1_epi64(LBL_HOT_REASONS));
	closed = _mm512_mask_cmple_epu64_mask(closed, ns, _mm512_set1_epi64(LBL_TOP_NS));
	return _mm512_mask_cmplt_epu64_mask(closed, before, events->timestamp);
}

AVX512 static inline __mmask8 are_opened(const struct columns *events)
{
	__m512i differs = _mm512_xor_si512(events->word, _mm512_set1_epi64(LBL_OPENED));

	return _mm512_testn_epi64_mask(differs, _mm512_set1_epi64(0xff));
}

/* As lbl_bits(). */
AVX512 static inline __m512i bits_of(__m512i ns)
{
	__m512i more = _mm512_add_epi64(ns, _mm512_set1_epi64(1));

	return _mm512_castpd_si512(_mm512_cvtepi64_pd(more));
}

/* Decode the events from `i` on, opened ones whatever the horizon is. */
AVX512 static inline struct columns decode_eight(struct lbl_burst *burst, uint32_t i)
{
	struct columns events = load_columns(burst->first + i * (size_t)LBL_EVENT_STRIDE);
	__m512i ns = _mm512_sub_epi64(events.timestamp, events.created);
	__mmask8 closed = are_closed(&events, ns);

	ns = _mm512_maskz_mov_epi64(closed, ns);
	_mm512_storeu_si512(&burst->ns[i], ns);
	_mm512_storeu_si512(&burst->bits[i], bits_of(ns));
	_mm512_storeu_si512(&burst->head[i], events.word);
	((uint8_t *)&burst->closed)[i / 8] = closed;
	((uint8_t *)&burst->opened)[i / 8] = are_opened(&events);
	return events;
}

AVX512 static void decode_without_horizon(struct lbl_burst *burst, uint32_t n)
{
	__m512i last = _mm512_setzero_si512();
	uint32_t i;

	for (i = 0; i < n; i += 8)
		last = _mm512_max_epu64(last, decode_eight(burst, i).timestamp);
	burst->last_ns = _mm512_reduce_max_epu64(last);
}

/* Returns false if some of the connections may be older than the horizon. */
AVX512 static bool decode_newer(struct lbl_burst *burst, uint32_t n)
{
	__m512i created = _mm512_set1_epi64(-1), timestamp = created;
	uint32_t i;

	for (i = 0; i < n; i += 8) {
		struct columns events = decode_eight(burst, i);
		__m512i before = _mm512_sub_epi64(events.created, _mm512_set1_epi64(1));

		created = _mm512_min_epu64(created, before); /* the largest if it is not told */
		timestamp = _mm512_min_epu64(timestamp, events.timestamp);
	}
	return _mm512_reduce_min_epu64(created) >= burst->horizon_ns - 1 &&
	       _mm512_reduce_min_epu64(timestamp) >= burst->horizon_ns;
}

AVX512 static void decode_any(struct lbl_burst *burst, uint32_t n)
{
	__m512i horizon = _mm512_set1_epi64((long long)burst->horizon_ns);
	uint8_t *closed = (uint8_t *)&burst->closed, *opened = (uint8_t *)&burst->opened;
	uint32_t i;

	for (i = 0; i < n; i += 8) {
		struct columns events = decode_eight(burst, i);
		__mmask8 untold = _mm512_testn_epi64_mask(events.created, events.created);
		__m512i began = _mm512_mask_mov_epi64(events.created, untold, events.timestamp);
		__mmask8 older = _mm512_cmplt_epu64_mask(began, horizon);

		((uint8_t *)&burst->older)[i / 8] = closed[i / 8] & older;
		opened[i / 8] &= (uint8_t)~older;
	}
}

AVX512 uint32_t lbl_burst_decode_avx512(struct lbl_burst *burst)
{
	uint32_t n = burst->n & ~7U;

	if (!burst->horizon_ns)
		decode_without_horizon(burst, n);
	else if (!decode_newer(burst, n))
		decode_any(burst, n);
	return n;
}

/* ---- latencies besides lifetimes ---- */

/* Return the short time, in us, from which a latency is computed. `spans` begin at connect_us. */
AVX512 static inline __m512i span(const struct columns *spans, enum lbl_metric metric)
{
	switch (metric) {
	case LBL_CONNECT:
		return low_half(spans->word);
	case LBL_FIRST_BYTE:
		return _mm512_srli_epi64(spans->word, 32);
	default:
		return low_half(spans->timestamp);
	}
}

AVX512 static inline void read_latency(struct lbl_burst *burst, struct lbl_burst_more *more,
				       enum lbl_metric metric, uint32_t i,
				       const struct columns *spans)
{
	__m512i us = span(spans, metric), ns = _mm512_mul_epu32(us, _mm512_set1_epi64(1000));
	__m512i before = _mm512_sub_epi64(us, _mm512_set1_epi64(1));
	__mmask8 measured = _mm512_cmplt_epu64_mask(before, _mm512_set1_epi64(LBL_SPAN_NONE - 1));

	if (metric == LBL_ACTIVE) {
		__m512i lifetime = _mm512_loadu_si512(&burst->ns[i]);

		measured = _mm512_mask_cmple_epu64_mask(measured, ns, lifetime);
		ns = _mm512_sub_epi64(lifetime, ns);
	}
	ns = _mm512_maskz_mov_epi64(measured, ns);
	_mm512_storeu_si512(&more->ns[i], ns);
	_mm512_storeu_si512(&more->bits[i], bits_of(ns));
	more->measured |= (uint64_t)measured << i;
}

/* The same as read_latency() in burst.c. */
AVX512 uint32_t lbl_burst_read_avx512(struct lbl_burst *burst, const enum lbl_metric *metrics,
				      uint32_t n_metrics)
{
	uint32_t n = burst->n & ~7U, i, k;

	for (k = 0; k < n_metrics; k++) {
		if (metrics[k] > LBL_ACTIVE)
			return 0;
	}
	for (i = 0; i < n; i += 8) {
		struct columns spans = load_columns(burst->first + i * (size_t)LBL_EVENT_STRIDE +
						    offsetof(struct lbl_event, connect_us));

		for (k = 0; k < n_metrics; k++)
			read_latency(burst, &burst->more[k], metrics[k], i, &spans);
	}
	return n;
}

/* ---- keys ---- */

enum { KEY_LANES = 0xf8, VECTOR = 32 }; /* the last 20 of 32 bytes are the key */

AVX512 static inline __m256i load_end(const void *p, size_t size)
{
	return _mm256_loadu_si256((const void *)((const char *)p + size - VECTOR));
}

AVX512 bool lbl_burst_same_keys_avx512(const struct lbl_burst *burst)
{
	__m256i differ = _mm256_setzero_si256();
	uint32_t i;

#pragma GCC unroll 4
	for (i = 0; i < burst->n; i++) {
		__m256i hot = load_end(burst->hot[i], sizeof(*burst->hot[i]));
		__m256i event = load_end(lbl_burst_event(burst, i), sizeof(struct lbl_event));

		differ = _mm256_or_si256(differ, _mm256_xor_si256(hot, event));
	}
	return !_mm256_mask_test_epi32_mask(KEY_LANES, differ, differ);
}

#else

bool lbl_has_avx512(void)
{
	return false;
}

uint32_t lbl_burst_decode_avx512(struct lbl_burst *burst)
{
	(void)burst;
	return 0;
}

uint32_t lbl_burst_read_avx512(struct lbl_burst *burst, const enum lbl_metric *metrics,
			       uint32_t n_metrics)
{
	(void)burst, (void)metrics, (void)n_metrics;
	return 0;
}

bool lbl_burst_same_keys_avx512(const struct lbl_burst *burst)
{
	(void)burst;
	return false;
}

#endif
