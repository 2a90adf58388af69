// SPDX-License-Identifier: MIT
#include <pthread.h>
#include <stddef.h>

#include "base/fork.h"
#include "stream/wish.h"

/* Guards the list and all that is in it. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct lbl_wish *all;

/* A child has none of the threads that wish. */
static void handle_fork(struct lbl_fork_entry *entry, enum lbl_fork_phase phase)
{
	(void)entry;
	if (phase == LBL_FORK_PREPARE) {
		pthread_mutex_lock(&lock);
		return;
	}
	if (phase == LBL_FORK_CHILD)
		all = NULL;
	pthread_mutex_unlock(&lock);
}

/* No thread holds another lock meanwhile. */
static struct lbl_fork_entry fork_entry = { .rank = LBL_FORK_COUNTED, .handle = handle_fork };

static __attribute__((constructor)) void install(void)
{
	lbl_fork_register(&fork_entry);
}

static void drop(const struct lbl_wish *wish)
{
	struct lbl_wish **at = &all;

	while (*at && *at != wish)
		at = &(*at)->next;
	if (*at)
		*at = wish->next;
}

static const struct lbl_wish *of_owner(uint32_t ring)
{
	const struct lbl_wish *found = all;

	while (found && found->has != ring)
		found = found->next;
	return found;
}

/* A circle that does not close here is others' business, so as many steps as wishes are enough. */
static bool is_circular(const struct lbl_wish *wish)
{
	const struct lbl_wish *at = of_owner(wish->wants), *step;

	for (step = all; step && at && at != wish; step = step->next)
		at = of_owner(at->wants);
	return at == wish;
}

bool lbl_wish_set(struct lbl_wish *wish, uint32_t has, uint32_t wants)
{
	bool closes;

	pthread_mutex_lock(&lock);
	drop(wish);
	*wish = (struct lbl_wish){ all, has, wants };
	all = wish;
	closes = is_circular(wish);
	pthread_mutex_unlock(&lock);
	return closes;
}

void lbl_wish_clear(struct lbl_wish *wish)
{
	pthread_mutex_lock(&lock);
	drop(wish);
	pthread_mutex_unlock(&lock);
}
