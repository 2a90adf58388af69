// SPDX-License-Identifier: MIT
/*
 * fork() copies memory but not threads, so the child would find a lock of the drain thread locked
 * for ever. Therefore every registered object takes its locks before the fork and releases them
 * after it.
 */
#include <pthread.h>
#include <stddef.h>

#include "base/fork.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct lbl_fork_entry *entries; /* ascending ranks */
static uint64_t registered;

static void notify(enum lbl_fork_phase phase)
{
	struct lbl_fork_entry *entry;

	for (entry = entries; entry; entry = entry->next)
		entry->handle(entry, phase);
}

static void prepare(void)
{
	pthread_mutex_lock(&lock);
	notify(LBL_FORK_PREPARE);
}

static void parent(void)
{
	notify(LBL_FORK_PARENT);
	pthread_mutex_unlock(&lock);
}

static void child(void)
{
	notify(LBL_FORK_CHILD);
	pthread_mutex_unlock(&lock);
}

static __attribute__((constructor)) void install(void)
{
	pthread_atfork(prepare, parent, child);
}

uint64_t lbl_fork_register(struct lbl_fork_entry *entry)
{
	struct lbl_fork_entry **at = &entries;
	uint64_t serial;

	pthread_mutex_lock(&lock);
	while (*at && (*at)->rank <= entry->rank)
		at = &(*at)->next;
	entry->next = *at;
	*at = entry;
	serial = registered++;
	pthread_mutex_unlock(&lock);
	return serial;
}

void lbl_fork_unregister(struct lbl_fork_entry *entry)
{
	struct lbl_fork_entry **at = &entries;

	pthread_mutex_lock(&lock);
	while (*at && *at != entry)
		at = &(*at)->next;
	if (*at)
		*at = entry->next;
	pthread_mutex_unlock(&lock);
}
