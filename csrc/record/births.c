// SPDX-License-Identifier: MIT
/* Open connections by their tuple, for events that do not say when theirs was created. */
#include <stdlib.h>

#include "record/births.h"
#include "base/util.h"

enum { FIRST_BIRTHS = 1024, BIRTHS_MAX = 1 << 20 };

static uint32_t hash_birth(const struct lbl_births *flows, const struct lbl_birth_key *key)
{
	uint64_t addresses, ports;

	memcpy(&addresses, key, sizeof(addresses));
	ports = (uint64_t)key->client_port << 16 | key->target_port;
	return (uint32_t)lbl_mix(addresses ^ flows->seed, ports ^ flows->seed ^ 0x9e3779b97f4a7c15);
}

/* Where the flow is, or the empty entry where it would go. */
static uint32_t position(const struct lbl_births *flows, const struct lbl_birth_key *key)
{
	uint32_t i = hash_birth(flows, key) & flows->mask;

	while (flows->entries[i].used && memcmp(&flows->entries[i].key, key, sizeof(*key)))
		i = (i + 1) & flows->mask;
	return i;
}

static int grow(struct lbl_births *flows)
{
	struct lbl_births larger = { .seed = flows->seed,
				     .mask = flows->entries ? flows->mask * 2 + 1
							    : FIRST_BIRTHS - 1 };
	uint32_t i;

	larger.entries = calloc((size_t)larger.mask + 1, sizeof(*larger.entries));
	if (!larger.entries)
		return -ENOMEM;
	for (i = 0; flows->entries && i <= flows->mask; i++) {
		const struct lbl_birth *flow = &flows->entries[i];

		if (flow->used)
			larger.entries[position(&larger, &flow->key)] = *flow;
	}
	larger.n = flows->n;
	free(flows->entries);
	*flows = larger;
	return 0;
}

/* Close the gap that a removed entry leaves, so that look-ups need no tombstones. */
static void remove_at(struct lbl_births *flows, uint32_t gap)
{
	uint32_t i = gap;

	flows->n--;
	for (;;) {
		uint32_t home;

		flows->entries[gap].used = 0;
		do {
			i = (i + 1) & flows->mask;
			if (!flows->entries[i].used)
				return;
			home = hash_birth(flows, &flows->entries[i].key) & flows->mask;
		} while (((i - home) & flows->mask) < ((i - gap) & flows->mask));
		flows->entries[gap] = flows->entries[i];
		gap = i;
	}
}

/* Of a full table: forget one that is as good as any, since it may well have closed unseen. */
static void forget_one(struct lbl_births *flows, const struct lbl_birth_key *key)
{
	uint32_t i = hash_birth(flows, key) & flows->mask;

	while (!flows->entries[i].used)
		i = (i + 1) & flows->mask;
	remove_at(flows, i);
}

int lbl_births_insert(struct lbl_births *flows, const struct lbl_birth_key *key,
		      uint64_t created_ns)
{
	struct lbl_birth *flow;
	int forgot = 0;

	if (!flows->entries || (flows->n > flows->mask / 2 && flows->n < BIRTHS_MAX)) {
		int err = grow(flows);

		if (err)
			return err;
	}
	flow = &flows->entries[position(flows, key)];
	if (!flow->used && flows->n == BIRTHS_MAX) {
		forget_one(flows, key);
		flow = &flows->entries[position(flows, key)];
		forgot = 1;
	}
	flows->n += !flow->used;
	*flow = (struct lbl_birth){ .key = *key, .used = 1, .created_ns = created_ns };
	return forgot;
}

uint64_t lbl_births_take(struct lbl_births *flows, const struct lbl_birth_key *key)
{
	uint64_t created_ns;
	uint32_t i;

	if (!flows->n)
		return 0;
	i = position(flows, key);
	if (!flows->entries[i].used)
		return 0;
	created_ns = flows->entries[i].created_ns;
	remove_at(flows, i);
	return created_ns;
}

void lbl_births_destroy(struct lbl_births *flows)
{
	free(flows->entries);
	memset(flows, 0, sizeof(*flows));
}
