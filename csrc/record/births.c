// SPDX-License-Identifier: MIT
#include <stdlib.h>
#include <sys/random.h>

#include "base/util.h"
#include "record/births.h"

enum { FIRST_BIRTHS = 1024, BIRTHS_MAX = 1 << 20 };

void lbl_births_init(struct lbl_births *births)
{
	*births = (struct lbl_births){ 0 };
	if (getrandom(&births->seed, sizeof(births->seed), GRND_NONBLOCK) != sizeof(births->seed))
		births->seed = (uintptr_t)births;
}

static uint32_t hash_birth(const struct lbl_births *births, const struct lbl_birth_key *key)
{
	uint64_t front, ports;

	memcpy(&front, key, sizeof(front));
	memcpy(&ports, &key->client_port, sizeof(ports));
	front = lbl_mix(front ^ births->seed, key->target ^ births->seed ^ 0xa0761d6478bd642f);
	return (uint32_t)lbl_mix(front ^ births->seed, ports ^ births->seed ^ 0x9e3779b97f4a7c15);
}

/* Return the position of the key's entry, or of the empty one to insert it. */
static uint32_t position(const struct lbl_births *births, const struct lbl_birth_key *key)
{
	uint32_t i = hash_birth(births, key) & births->mask;

	while (births->entries[i].used && memcmp(&births->entries[i].key, key, sizeof(*key)))
		i = (i + 1) & births->mask;
	return i;
}

static int grow(struct lbl_births *births)
{
	struct lbl_births larger = { .seed = births->seed,
				     .mask = births->entries ? births->mask * 2 + 1
							     : FIRST_BIRTHS - 1 };
	uint32_t i;

	larger.entries = calloc((size_t)larger.mask + 1, sizeof(*larger.entries));
	if (!larger.entries)
		return -ENOMEM;
	for (i = 0; births->entries && i <= births->mask; i++) {
		const struct lbl_birth *birth = &births->entries[i];

		if (birth->used)
			larger.entries[position(&larger, &birth->key)] = *birth;
	}
	larger.n = births->n;
	free(births->entries);
	*births = larger;
	return 0;
}

/* Remove an entry and close the gap, so that no tombstones are needed. */
static void remove_at(struct lbl_births *births, uint32_t gap)
{
	uint32_t i = gap;

	births->n--;
	for (;;) {
		uint32_t home;

		births->entries[gap].used = 0;
		do {
			i = (i + 1) & births->mask;
			if (!births->entries[i].used)
				return;
			home = hash_birth(births, &births->entries[i].key) & births->mask;
		} while (((i - home) & births->mask) < ((i - gap) & births->mask));
		births->entries[gap] = births->entries[i];
		gap = i;
	}
}

/* Table full: evict an arbitrary entry; its close was probably missed. */
static void evict_one(struct lbl_births *births, const struct lbl_birth_key *key)
{
	uint32_t i = hash_birth(births, key) & births->mask;

	while (!births->entries[i].used)
		i = (i + 1) & births->mask;
	remove_at(births, i);
}

static struct lbl_birth_key key_of(const struct lbl_decoded_event *event)
{
	struct lbl_birth_key key = { .client_port = event->client_port,
				     .vip_port = event->vip_port,
				     .target_port = event->event.port };

	memcpy(&key.client, event->client_addr + 12, sizeof(key.client));
	memcpy(&key.vip, event->vip_addr + 12, sizeof(key.vip));
	memcpy(&key.target, event->event.addr + 12, sizeof(key.target));
	return key;
}

/* Return the key's entry, or NULL if it has none. */
static struct lbl_birth *find(const struct lbl_births *births, const struct lbl_birth_key *key)
{
	struct lbl_birth *birth = births->n ? &births->entries[position(births, key)] : NULL;

	return birth && birth->used ? birth : NULL;
}

static int add(struct lbl_births *births, const struct lbl_birth_key *key, uint64_t created_ns)
{
	int evicted = 0;

	if (!births->entries || (births->n > births->mask / 2 && births->n < BIRTHS_MAX)) {
		int err = grow(births);

		if (err)
			return err;
	}
	if (births->n == BIRTHS_MAX) {
		evict_one(births, key);
		evicted = 1;
	}
	births->n++;
	births->entries[position(births, key)] =
		(struct lbl_birth){ .key = *key, .used = 1, .created_ns = created_ns };
	return evicted;
}

int lbl_births_insert(struct lbl_births *births, const struct lbl_decoded_event *event)
{
	const struct lbl_birth_key key = key_of(event);
	uint64_t created_ns = event->event.timestamp_ns;
	struct lbl_birth *birth = find(births, &key);

	if (!birth)
		return created_ns ? add(births, &key, created_ns) : 0;
	if (birth->created_ns != created_ns) /* else the same event came again */
		birth->created_ns = 0;
	return 0;
}

bool lbl_births_take(struct lbl_births *births, const struct lbl_decoded_event *event,
		     uint64_t *ret)
{
	const struct lbl_birth_key key = key_of(event);
	const struct lbl_birth *birth = find(births, &key);

	if (!birth)
		return false;
	*ret = birth->created_ns;
	remove_at(births, (uint32_t)(birth - births->entries));
	return true;
}

void lbl_births_destroy(struct lbl_births *births)
{
	free(births->entries);
	memset(births, 0, sizeof(*births));
}
