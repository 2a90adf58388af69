/* SPDX-License-Identifier: MIT */
/* The bucket bounds of a histogram, and the index that finds a duration's slot. Immutable. */
#ifndef LBL_HIST_BUCKETS_H
#define LBL_HIST_BUCKETS_H

#include "base/util.h"

/* cdef: begin */
struct lbl_buckets;

/* Limits of a histogram. Native buckets of schema s grow by a factor of 2^2^-s. */
enum {
	LBL_NATIVE_SCHEMA_MIN = -4,
	LBL_NATIVE_SCHEMA = 6, /* the finest schema; all counters use it */
	LBL_ZERO_LOG2 = -20, /* the zero bucket of native histograms ends at 2^-20 s */
	LBL_TOP_LOG2 = 24, /* the highest bound, classic or native, is 2^24 s: 194 days */
	LBL_CLASSIC_MIN_NS = 1000, /* lowest classic bound */
	LBL_CLASSIC_MAX = 512, /* number of classic bounds */
	LBL_OBSERVE_LOG2 = 62, /* the longest duration is 2^62 ns: 146 years */
};

/*
 * Merge `n` classic bounds (ns, ascending, each LBL_CLASSIC_MIN_NS to 2^LBL_TOP_LOG2 s) with the
 * bounds of native schema 6 into one set of slots. On success, `*ret` has one reference, which
 * lbl_buckets_free() drops. -EINVAL if the bounds are out of order or out of range, -ERANGE if more
 * than two bounds are so close that the index cannot separate them, -ENOMEM.
 */
int lbl_buckets_new(const uint64_t *bounds, size_t n, struct lbl_buckets **ret);
void lbl_buckets_free(struct lbl_buckets *buckets);

/* Return the number of slots. The last slot counts durations above 2^24 s. */
uint32_t lbl_buckets_slots(const struct lbl_buckets *buckets);

/* Return the slot of a duration. Upper bounds are inclusive, like `le`. */
uint32_t lbl_buckets_slot(const struct lbl_buckets *buckets, uint64_t ns);

/* Return a slot's inclusive upper bound in ns; UINT64_MAX for the last slot. */
uint64_t lbl_buckets_upper(const struct lbl_buckets *buckets, uint32_t slot);
/* cdef: end */

enum {
	LBL_NATIVE_PER_OCTAVE = 1 << LBL_NATIVE_SCHEMA,
	LBL_NATIVE_FIRST = LBL_ZERO_LOG2 * LBL_NATIVE_PER_OCTAVE,
	LBL_NATIVE_LAST = LBL_TOP_LOG2 * LBL_NATIVE_PER_OCTAVE,
	LBL_NATIVE_BOUNDS = LBL_NATIVE_LAST - LBL_NATIVE_FIRST + 1,
	LBL_SLOTS_MAX = LBL_NATIVE_BOUNDS + LBL_CLASSIC_MAX + 1,
	LBL_CELL_BITS = 7,
	LBL_CELLS = 54 << LBL_CELL_BITS,
};

#define LBL_TOP_NS (1000000000ULL << LBL_TOP_LOG2)
#define LBL_LIFETIME_MAX (1ULL << 58) /* nine years: longer than any kernel's uptime */
#define LBL_OBSERVE_MAX (1ULL << LBL_OBSERVE_LOG2)

struct lbl_buckets {
	int refs;
	uint32_t n_slots;
	uint32_t n_classic;
	uint64_t upper[LBL_SLOTS_MAX + 2]; /* inclusive, ns; UINT64_MAX behind the last bound */
	uint64_t cell[LBL_CELLS]; /* see lbl_slot_of() */
	int32_t native[LBL_SLOTS_MAX]; /* schema-6 index of the slot */
	uint16_t classic[LBL_CLASSIC_MAX]; /* the slot that ends at the classic bound */
};

/*
 * The slot of a duration takes one load to find. The duration is converted to a double, whose bits
 * grow with it: exponent and top of the mantissa number a cell of 1/128 octave, and the lower
 * LBL_REST_BITS are the position in the cell. The sum of the bits and the cell's entry has the slot
 * above LBL_REST_BITS, since the entry is the number of bounds below the cell, minus the cell's own
 * bits, plus a number that makes positions after the cell's bound carry. If a cell has two bounds,
 * or if doubles do not hold all of its ns, its entry adds LBL_BY_COMPARES instead, and compares find
 * the slot.
 */
enum { LBL_REST_BITS = 52 - LBL_CELL_BITS, LBL_BY_COMPARES = 1 << 15 };

/* `ns` is at most LBL_TOP_NS. Adds 1, since 0 has no exponent. */
static inline uint64_t lbl_bits(uint64_t ns)
{
	const union {
		double d;
		uint64_t u;
	} x = { .d = (double)(int64_t)(ns + 1) };

	return x.u;
}

static inline uint64_t lbl_cell(uint64_t bits)
{
	return (bits >> LBL_REST_BITS) - (1023ULL << LBL_CELL_BITS);
}

static inline uint64_t lbl_slot_of(const struct lbl_buckets *buckets, uint64_t bits,
				   const uint64_t *ns)
{
	uint64_t slot = (buckets->cell[lbl_cell(bits)] + bits) >> LBL_REST_BITS;

	if (unlikely(slot >= LBL_BY_COMPARES)) {
		slot -= LBL_BY_COMPARES;
		slot += buckets->upper[slot] < *ns;
		slot += buckets->upper[slot] < *ns;
	}
	return slot;
}

static inline uint32_t lbl_slot(const struct lbl_buckets *buckets, uint64_t ns)
{
	return ns > LBL_TOP_NS ? buckets->n_slots - 1
			       : (uint32_t)lbl_slot_of(buckets, lbl_bits(ns), &ns);
}

#endif
