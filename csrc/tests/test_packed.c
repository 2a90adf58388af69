// SPDX-License-Identifier: MIT
/* Rows in as few bytes as possible: what is packed comes out again. */
#include "common.h"
#include "hist/packed.h"

enum { PAIRS = 4096 };

static struct lbl_packed packed;

static bool same_row(const struct lbl_packed_row *a, const struct lbl_packed_row *b)
{
	return a->n == b->n && a->sum == b->sum &&
	       !memcmp(a->tallies, b->tallies, sizeof(a->tallies));
}

static void check_row(const uint8_t **at, const struct lbl_packed_row *row, const uint16_t *slots,
		      const uint64_t *counts)
{
	const uint8_t *end = lbl_packed_skip(*at);
	struct lbl_packed_row found;
	uint32_t slot = UINT32_MAX, i;
	uint64_t count;

	*at = lbl_packed_row(*at, &found);
	CHECK(same_row(&found, row));
	for (i = 0; i < row->n; i++) {
		*at = lbl_packed_pair(*at, &slot, &count);
		CHECK(slot == slots[i] && count == counts[i]);
	}
	CHECK(*at == end);
}

/* Gaps around where a token can hold them, and counts around each length of a number. */
static void test_every_length(void)
{
	static const uint32_t gaps[] = {
		0, 1, LBL_GAP_LONG - 1, LBL_GAP_LONG, LBL_GAP_LONG + 1, 300
	};
	const uint8_t *at;
	uint32_t bits, g;
	size_t n = 0;

	for (g = 0; g < 6; g++) {
		for (bits = 0; bits < 64; bits++) {
			const uint64_t counts[] = { 1ULL << bits, UINT64_MAX >> bits, 1 };
			const uint16_t slots[] = { (uint16_t)gaps[g], (uint16_t)(2 * gaps[g] + 1),
						   65535 };
			const struct lbl_packed_row row = {
				.tallies = { [0] = bits, [7] = counts[1] },
				.sum = (lbl_u128)counts[0] << bits,
				.n = 3,
			};

			REQUIRE(!lbl_packed_add(&packed, &row, slots, counts));
			at = packed.at + n;
			check_row(&at, &row, slots, counts);
			n = packed.n;
			CHECK(at == packed.at + n);
		}
	}
	lbl_packed_free(&packed);
	CHECK(!packed.at && !packed.n);
}

/* Most rows of a history: a connection or two. */
static void test_little_takes_few_bytes(void)
{
	const struct lbl_packed_row row = { .tallies = { 0, 2 }, .sum = 3000000, .n = 2 };
	const struct lbl_packed_row none = { .n = 0 };
	const uint16_t slots[] = { 1000, 1010 };
	const uint64_t counts[] = { 1, 1 };

	REQUIRE(!lbl_packed_add(&packed, &none, NULL, NULL));
	CHECK(packed.n == 2);
	REQUIRE(!lbl_packed_add(&packed, &row, slots, counts));
	CHECK(packed.n == 2 + 1 + 1 + 1 + 4 + 1 + 3 + 1);
	lbl_packed_free(&packed);
}

static uint64_t random_number(void)
{
	static uint64_t state = 1;

	state = state * 6364136223846793005 + 1442695040888963407;
	return state >> 33;
}

static uint32_t random_pairs(uint16_t *slots, uint64_t *counts)
{
	uint32_t n = 0, slot = (uint32_t)random_number() % 3000;

	while (n < PAIRS && slot < 3300) {
		slots[n] = (uint16_t)slot;
		counts[n++] =
			1 + (random_number() % 4 ? 0 : random_number() >> random_number() % 31);
		slot += 1 + (uint32_t)(random_number() % (random_number() % 200 + 1));
	}
	return n;
}

/* Rows behind each other, also after they were appended elsewhere and trimmed. */
static void test_random_rows(void)
{
	static uint16_t slots[300][PAIRS];
	static uint64_t counts[300][PAIRS];
	static struct lbl_packed_row rows[300];
	struct lbl_packed copy = { 0 };
	const uint8_t *at;
	uint32_t i, k;

	for (i = 0; i < 300; i++) {
		rows[i].n = random_pairs(slots[i], counts[i]);
		rows[i].sum = random_number() % 3 ? random_number() : 0;
		for (k = 0; k < LBL_PACKED_TALLIES; k++)
			rows[i].tallies[k] = random_number() % 2 ? random_number() : 0;
		REQUIRE(!lbl_packed_add(&packed, &rows[i], slots[i], counts[i]));
	}
	REQUIRE(!lbl_packed_append(&copy, packed.at, packed.n));
	lbl_packed_trim(&copy);
	CHECK(copy.capacity == packed.n);
	at = copy.at;
	for (i = 0; i < 300; i++)
		check_row(&at, &rows[i], slots[i], counts[i]);
	CHECK(at == copy.at + copy.n);
	lbl_packed_free(&packed);
	lbl_packed_free(&copy);
}

int main(void)
{
	RUN(test_every_length);
	RUN(test_little_takes_few_bytes);
	RUN(test_random_rows);
	return checks_done();
}
