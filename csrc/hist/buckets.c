// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "hist/buckets.h"

/* floor(2^63 * 2^(k/64)): the native bounds of one octave. */
static const uint64_t octave[LBL_NATIVE_PER_OCTAVE] = {
	0x8000000000000000, 0x8164d1f3bc030773, 0x82cd8698ac2ba1d7, 0x843a28c3acde4046,
	0x85aac367cc487b14, 0x871f61969e8d1010, 0x88980e8092da8527, 0x8a14d575496efd9a,
	0x8b95c1e3ea8bd6e6, 0x8d1adf5b7e5ba9e5, 0x8ea4398b45cd53c0, 0x9031dc431466b1dc,
	0x91c3d373ab11c336, 0x935a2b2f13e6e92b, 0x94f4efa8fef70961, 0x96942d3720185a00,
	0x9837f0518db8a96f, 0x99e0459320b7fa64, 0x9b8d39b9d54e5538, 0x9d3ed9a72cffb750,
	0x9ef5326091a111ad, 0xa0b0510fb9714fc2, 0xa27043030c496818, 0xa43515ae09e6809e,
	0xa5fed6a9b15138ea, 0xa7cd93b4e9653569, 0xa9a15ab4ea7c0ef8, 0xab7a39b5a93ed337,
	0xad583eea42a14ac6, 0xaf3b78ad690a4374, 0xb123f581d2ac258f, 0xb311c412a9112489,
	0xb504f333f9de6484, 0xb6fd91e328d17791, 0xb8fbaf4762fb9ee9, 0xbaff5ab2133e45fb,
	0xbd08a39f580c36be, 0xbf1799b67a731082, 0xc12c4cca66709456, 0xc346ccda24976407,
	0xc5672a115506dadd, 0xc78d74c8abb9b15c, 0xc9b9bd866e2f27a2, 0xcbec14fef2727c5c,
	0xce248c151f8480e3, 0xd06333daef2b2594, 0xd2a81d91f12ae45a, 0xd4f35aabcfedfa1f,
	0xd744fccad69d6af4, 0xd99d15c278afd7b5, 0xdbfbb797daf23755, 0xde60f4825e0e9123,
	0xe0ccdeec2a94e111, 0xe33f8972be8a5a51, 0xe5b906e77c8348a8, 0xe8396a503c4bdc68,
	0xeac0c6e7dd24392e, 0xed4f301ed9942b84, 0xefe4b99bdcdaf5cb, 0xf281773c59ffb139,
	0xf5257d152486cc2c, 0xf7d0df730ad13bb8, 0xfa83b2db722a033a, 0xfd3e0c0cf486c174,
};

/* floor(1e9 * 2^(i/64)): a whole ns is at most the bound if and only if it is at most this. */
static uint64_t native_bound(int i)
{
	int exponent = i >> LBL_NATIVE_SCHEMA;

	return (uint64_t)(((lbl_u128)1000000000 * octave[i & (LBL_NATIVE_PER_OCTAVE - 1)]) >>
			  (63 - exponent));
}

static int check_bounds(const uint64_t *bounds, size_t n)
{
	size_t i;

	if (n > LBL_CLASSIC_MAX)
		return -EINVAL;
	for (i = 0; i < n; i++) {
		if (bounds[i] < LBL_CLASSIC_MIN_NS || bounds[i] > LBL_TOP_NS)
			return -EINVAL;
		if (i && bounds[i] <= bounds[i - 1])
			return -EINVAL;
	}
	return 0;
}

/* A classic bound that equals a native one shares its slot. */
static void merge_bounds(struct lbl_buckets *buckets, const uint64_t *bounds, size_t n)
{
	int native = LBL_NATIVE_FIRST;
	uint32_t slot = 0;
	size_t i = 0;

	while (native <= LBL_NATIVE_LAST) {
		uint64_t upper = native_bound(native);

		buckets->native[slot] = native;
		if (i < n && bounds[i] <= upper) {
			buckets->classic[i] = (uint16_t)slot;
			buckets->upper[slot] = bounds[i];
			native += bounds[i++] == upper;
		} else {
			buckets->upper[slot] = upper;
			native++;
		}
		slot++;
	}
	buckets->native[slot] = LBL_NATIVE_LAST + 1;
	buckets->n_slots = slot + 1;
	buckets->n_classic = (uint32_t)n;
	for (; slot < LBL_SLOTS_MAX + 2; slot++)
		buckets->upper[slot] = UINT64_MAX;
}

/* Below 2^53 ns (104 days), a double holds every duration exactly. */
enum { EXACT_CELLS = 53 << LBL_CELL_BITS, MOST_IN_CELL = 2 };

/* Return a cell's entry. `first` bounds lie below the cell, `n` in it. */
static uint64_t cell_entry(const struct lbl_buckets *buckets, uint32_t cell, uint32_t first,
			   uint32_t n)
{
	uint64_t bits = (uint64_t)(cell + (1023ULL << LBL_CELL_BITS)) << LBL_REST_BITS;
	uint64_t entry = ((uint64_t)first << LBL_REST_BITS) - bits;

	if (n > 1 || cell >= EXACT_CELLS)
		return entry + ((uint64_t)LBL_BY_COMPARES << LBL_REST_BITS);
	if (n)
		entry += (1ULL << LBL_REST_BITS) - 1 - (lbl_bits(buckets->upper[first]) - bits);
	return entry;
}

static int fill_cells(struct lbl_buckets *buckets)
{
	uint32_t bounds = buckets->n_slots - 1, first = 0, cell, n;

	for (cell = 0; cell < LBL_CELLS; cell++, first += n) {
		for (n = 0; first + n < bounds; n++)
			if (lbl_cell(lbl_bits(buckets->upper[first + n])) != cell)
				break;
		if (n > MOST_IN_CELL)
			return -ERANGE;
		buckets->cell[cell] = cell_entry(buckets, cell, first, n);
	}
	return 0;
}

int lbl_buckets_new(const uint64_t *bounds, size_t n, struct lbl_buckets **ret)
{
	struct lbl_buckets *buckets;
	int err;

	err = check_bounds(bounds, n);
	if (err)
		return err;
	buckets = calloc(1, sizeof(*buckets));
	if (!buckets)
		return -ENOMEM;
	buckets->refs = 1;
	merge_bounds(buckets, bounds, n);
	err = fill_cells(buckets);
	if (err) {
		free(buckets);
		return err;
	}
	*ret = buckets;
	return 0;
}

void lbl_buckets_free(struct lbl_buckets *buckets)
{
	if (buckets && lbl_unref(&buckets->refs))
		free(buckets);
}

uint32_t lbl_buckets_slots(const struct lbl_buckets *buckets)
{
	return buckets->n_slots;
}

uint32_t lbl_buckets_slot(const struct lbl_buckets *buckets, uint64_t ns)
{
	return lbl_slot(buckets, ns);
}

uint64_t lbl_buckets_upper(const struct lbl_buckets *buckets, uint32_t slot)
{
	return slot + 1 < buckets->n_slots ? buckets->upper[slot] : UINT64_MAX;
}
