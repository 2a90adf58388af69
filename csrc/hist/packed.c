// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "hist/packed.h"

enum {
	NUMBER_BYTES = 10, /* at most, of 64 bits */
	SUM_BYTES = 2 * NUMBER_BYTES,
	PAIR_BYTES = 1 + 3 + NUMBER_BYTES, /* token, long gap, count */
};

static int reserve(struct lbl_packed *packed, size_t more)
{
	size_t larger = packed->capacity ? packed->capacity : 4096;
	uint8_t *at;

	if (packed->n + more <= packed->capacity)
		return 0;
	while (larger < packed->n + more)
		larger += larger / 2;
	at = realloc(packed->at, larger);
	if (!at)
		return -ENOMEM;
	packed->at = at;
	packed->capacity = larger;
	return 0;
}

static uint8_t *put_number(uint8_t *at, uint64_t number)
{
	for (; number >= 0x80; number >>= 7)
		*at++ = (uint8_t)(number | 0x80);
	*at++ = (uint8_t)number;
	return at;
}

static uint8_t *put_pair(uint8_t *at, uint32_t gap, uint64_t count)
{
	uint8_t *token = at++;

	*token = (uint8_t)(gap < LBL_GAP_LONG ? gap : LBL_GAP_LONG);
	if (gap >= LBL_GAP_LONG)
		at = put_number(at, gap - LBL_GAP_LONG);
	if (count > 1) {
		*token |= 1 << LBL_GAP_BITS;
		at = put_number(at, count - 2);
	}
	return at;
}

int lbl_packed_add(struct lbl_packed *packed, const struct lbl_packed_row *row,
		   const uint16_t *slots, const uint64_t *counts)
{
	size_t most = 1 + (LBL_PACKED_TALLIES + 1) * NUMBER_BYTES + SUM_BYTES + row->n * PAIR_BYTES;
	uint8_t *at, *mask;
	uint32_t i, next = 0;

	if (reserve(packed, most))
		return -ENOMEM;
	mask = packed->at + packed->n;
	*mask = 0;
	at = mask + 1;
	for (i = 0; i < LBL_PACKED_TALLIES; i++) {
		if (!row->tallies[i])
			continue;
		*mask |= (uint8_t)(1 << i);
		at = put_number(at, row->tallies[i]);
	}
	at = put_number(at, (uint64_t)row->n << 1 | !!row->sum);
	if (row->sum) {
		at = put_number(at, (uint64_t)row->sum);
		at = put_number(at, (uint64_t)(row->sum >> 64));
	}
	for (i = 0; i < row->n; i++) {
		at = put_pair(at, slots[i] - next, counts[i]);
		next = slots[i] + 1U;
	}
	packed->n = (size_t)(at - packed->at);
	return 0;
}

int lbl_packed_append(struct lbl_packed *packed, const uint8_t *rows, size_t n)
{
	if (reserve(packed, n))
		return -ENOMEM;
	memcpy(packed->at + packed->n, rows, n);
	packed->n += n;
	return 0;
}

void lbl_packed_trim(struct lbl_packed *packed)
{
	uint8_t *at = packed->n ? realloc(packed->at, packed->n) : NULL;

	if (at) {
		packed->at = at;
		packed->capacity = packed->n;
	}
}

void lbl_packed_free(struct lbl_packed *packed)
{
	free(packed->at);
	*packed = (struct lbl_packed){ 0 };
}

const uint8_t *lbl_packed_row(const uint8_t *at, struct lbl_packed_row *ret)
{
	uint8_t mask = *at++;
	uint64_t n, low = 0, high = 0;
	uint32_t i;

	for (i = 0; i < LBL_PACKED_TALLIES; i++) {
		ret->tallies[i] = 0;
		if (mask >> i & 1)
			at = lbl_packed_number(at, &ret->tallies[i]);
	}
	at = lbl_packed_number(at, &n);
	if (n & 1) {
		at = lbl_packed_number(at, &low);
		at = lbl_packed_number(at, &high);
	}
	ret->n = (uint32_t)(n >> 1);
	ret->sum = (lbl_u128)high << 64 | low;
	return at;
}

const uint8_t *lbl_packed_skip(const uint8_t *at)
{
	struct lbl_packed_row row;
	uint32_t slot = UINT32_MAX, i;
	uint64_t count;

	at = lbl_packed_row(at, &row);
	for (i = 0; i < row.n; i++)
		at = lbl_packed_pair(at, &slot, &count);
	return at;
}
