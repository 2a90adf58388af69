// SPDX-License-Identifier: MIT
#include <pthread.h>
#include <stdlib.h>

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
	uint32_t n, capacity;
	struct name **names;
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
	pthread_mutex_destroy(&names->lock);
	free(names);
}

static int append(struct lbl_intern *names, const char *text, size_t len)
{
	struct name *name;

	if (names->n > NAMES_MAX)
		return -ENOSPC;
	if (names->n == names->capacity) {
		uint32_t capacity = names->capacity ? names->capacity * 2 : 16;
		struct name **larger = reallocarray(names->names, capacity, sizeof(struct name *));

		if (!larger)
			return -ENOMEM;
		names->names = larger;
		names->capacity = capacity;
	}
	name = malloc(sizeof(*name) + len);
	if (!name)
		return -ENOMEM;
	name->len = len;
	memcpy(name->text, text, len);
	names->names[names->n] = name;
	return (int)names->n++;
}

/* A linear search is enough: proxies are few, and each is looked up once per backend. */
static int find(const struct lbl_intern *names, const char *text, size_t len)
{
	uint32_t i;

	for (i = 1; i < names->n; i++) {
		if (names->names[i]->len == len && !memcmp(names->names[i]->text, text, len))
			return (int)i;
	}
	return -ENOENT;
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
	found = find(names, text, len);
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
