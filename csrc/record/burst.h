/* SPDX-License-Identifier: MIT */
/* A burst of events on its way into the counters, and the steps that vectors make quicker. */
#ifndef LBL_RUN_H
#define LBL_RUN_H

#include "record/count.h"

/*
 * What is known of each event. All that is checked is kept here and not read from the ring again,
 * since others can write there. The first arrays are filled by decoding. Sets have a bit for each
 * event: `closed` those that closed a connection, no probe's, whose creation is known and not in
 * the future. All others have the lifetime 0; lbl_shard_record() sees to what is in neither set.
 */
struct lbl_burst {
	const char *first;
	uint32_t n;
	uint64_t closed, opened;
	uint64_t ns[LBL_BURST_MAX] __attribute__((aligned(64)));
	struct lbl_burst_column {
		uint16_t cell; /* see struct lbl_buckets */
		uint16_t reason;
		uint32_t id;
	} decoded[LBL_BURST_MAX];
	struct lbl_hot *hot[LBL_BURST_MAX];
	uint8_t *counter[LBL_BURST_MAX];
};

static inline const struct lbl_event *lbl_burst_event(const struct lbl_burst *burst, uint32_t i)
{
	return (const void *)(burst->first + i * 64UL);
}

/* The set of the first `n` events. */
static inline uint64_t lbl_burst_all(uint32_t n)
{
	return n < 64 ? (1ULL << n) - 1 : UINT64_MAX;
}

/* lbl_run_avx512.c: eight events at a time; only where lbl_has_avx512() says that it can be. */
bool lbl_has_avx512(void);
/* Decode events up to a multiple of 8, and return how many. */
uint32_t lbl_burst_decode_avx512(struct lbl_burst *burst);
/* Whether the keys of all events are those of their backends. */
bool lbl_burst_same_keys_avx512(const struct lbl_burst *burst);

/* Use it: as the processor says, or as a test wants it. */
extern bool lbl_use_avx512;

#endif
