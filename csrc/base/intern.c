// SPDX-License-Identifier: MIT
#include <pthread.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/intern.h"
#include "base/fork.h"
#include "base/util.h"

enum { NAMES_MAX = 65535 };

struct name {
	size_t len;
	char text[];
};

struct lbl_intern {
	struct lbl_fork_entry fork;
	pthread_mutex_t lock;
	uint32_t n, capacity; /* the capacity is 0 or a power of two */
	struct name **names;
	uint16_t *hash; /* twice the capacity; 0 = empty */
	uint64_t seed; /* secret: whoever chooses names must not choose collisions */
};

static void handle_fork(struct lbl_fork_entry *entry, enum lbl_fork_phase phase)
{
	struct lbl_intern *names = (struct lbl_intern *)entry;

	if (phase == LBL_FORK_PREPARE)
		pthread_mutex_lock(&names->lock);
	else
		pthread_mutex_unlock(&names->lock);
}

struct lbl_intern *lbl_intern_new(void)
{
	struct lbl_intern *names = calloc(1, sizeof(*names));

	if (!names)
		return NULL;
	if (getrandom(&names->seed, sizeof(names->seed), GRND_NONBLOCK) != sizeof(names->seed))
		names->seed = (uintptr_t)names;
	pthread_mutex_init(&names->lock, NULL);
	names->fork.rank = LBL_FORK_INTERN;
	names->fork.handle = handle_fork;
	lbl_fork_register(&names->fork);
	if (lbl_intern_insert(names, "overflow", strlen("overflow")) == 0)
		return names;
	lbl_intern_free(names);
	return NULL;
}

void lbl_intern_free(struct lbl_intern *names)
{
	uint32_t i;

	if (!names)
		return;
	lbl_fork_unregister(&names->fork);
	for (i = 0; i < names->n; i++)
		free(names->names[i]);
	free(names->names);
	free(names->hash);
	pthread_mutex_destroy(&names->lock);
	free(names);
}

static uint64_t hash_text(const struct lbl_intern *names, const char *text, size_t len)
{
	uint64_t hash = lbl_mix(names->seed, len ^ 0xa0761d6478bd642f), word;

	for (; len >= sizeof(word); len -= sizeof(word), text += sizeof(word)) {
		memcpy(&word, text, sizeof(word));
		hash = lbl_mix(hash ^ word, names->seed ^ 0xe7037ed1a0b428db);
	}
	word = 0;
	memcpy(&word, text, len);
	return lbl_mix(hash ^ word, names->seed ^ 0x8ebc6af09c88c6e3);
}

/* Return the place of a name, or the empty one for it. Number 0 is in none: it is reserved. */
static uint16_t *place(const struct lbl_intern *names, const char *text, size_t len)
{
	uint32_t mask = 2 * names->capacity - 1;
	uint32_t i = (uint32_t)hash_text(names, text, len) & mask;

	for (;; i = (i + 1) & mask) {
		uint16_t *number = &names->hash[i];
		const struct name *name = names->names[*number];

		if (!*number || (name->len == len && !memcmp(name->text, text, len)))
			return number;
	}
}

static int grow(struct lbl_intern *names)
{
	uint32_t capacity = names->capacity ? names->capacity * 2 : 16, i;
	struct name **larger = calloc(capacity, sizeof(struct name *));
	uint16_t *hash = calloc(2 * (size_t)capacity, sizeof(*hash));

	if (!larger || !hash) {
		free(larger);
		free(hash);
		return -ENOMEM;
	}
	for (i = 0; i < names->n; i++)
		larger[i] = names->names[i];
	free(names->names);
	free(names->hash);
	names->names = larger;
	names->hash = hash;
	names->capacity = capacity;
	for (i = 1; i < names->n; i++)
		*place(names, larger[i]->text, larger[i]->len) = (uint16_t)i;
	return 0;
}

static int append(struct lbl_intern *names, const char *text, size_t len)
{
	struct name *name;

	if (names->n > NAMES_MAX)
		return 0;
	if (names->n == names->capacity && grow(names))
		return -ENOMEM;
	name = calloc(1, sizeof(*name) + len);
	if (!name)
		return -ENOMEM;
	name->len = len;
	memcpy(name->text, text, len);
	names->names[names->n] = name;
	if (names->n)
		*place(names, text, len) = (uint16_t)names->n;
	return (int)names->n++;
}

static int find(const struct lbl_intern *names, const char *text, size_t len)
{
	uint16_t number = *place(names, text, len);

	return number ? number : -ENOENT;
}

int lbl_intern_find(struct lbl_intern *names, const char *text, size_t len)
{
	int found;

	pthread_mutex_lock(&names->lock);
	found = find(names, text, len);
	pthread_mutex_unlock(&names->lock);
	return found;
}

int lbl_intern_insert(struct lbl_intern *names, const char *text, size_t len)
{
	int found;

	pthread_mutex_lock(&names->lock);
	found = names->n ? find(names, text, len) : -ENOENT;
	if (found < 0)
		found = append(names, text, len);
	pthread_mutex_unlock(&names->lock);
	return found;
}

const char *lbl_intern_text(struct lbl_intern *names, uint16_t number, size_t *len)
{
	const struct name *name = NULL;

	pthread_mutex_lock(&names->lock);
	if (number < names->n)
		name = names->names[number];
	pthread_mutex_unlock(&names->lock);
	if (!name)
		return NULL;
	*len = name->len;
	return name->text;
}
