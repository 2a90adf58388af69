// SPDX-License-Identifier: MIT
#include <bpf/bpf.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fork.h"
#include "kernel/counters.h"
#include "kernel/maps.h"
#include "stream/counted.h"

struct lbl_counted {
	struct lbl_counted *next;
	int refs, fd;
	uint32_t id, users, restarts;
	bool frozen; /* in a child of fork(): the map counts for the parent's rings */
	struct lbl_counters last; /* the map as it was read last */
	struct lbl_counters earlier; /* sums of what it held each time before it went down */
};

/* Guards the list and all that is in it. Readings must not overtake each other. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct lbl_counted *all;

static int read_map(int fd, struct lbl_counters *ret)
{
	return lbl_counters_sum(fd, (uint64_t *)ret, sizeof(*ret) / sizeof(uint64_t));
}

static bool is_below(const struct lbl_counters *now, const struct lbl_counters *before)
{
	return now->produced < before->produced || now->dropped < before->dropped;
}

/* Whatever a map says, no sum goes down. */
static uint64_t add(uint64_t a, uint64_t b)
{
	return a + b < a ? UINT64_MAX : a + b;
}

enum { ROUNDS_MAX = 100 };

/*
 * A loader sets the CPUs' counters to zero one by one. Read again until they go up: what was read
 * in between is neither the old sum nor a new one.
 */
static int update(struct lbl_counted *counted)
{
	struct lbl_counters now, before = counted->last;
	bool restarted = false;
	int err, round;

	for (round = 0; round < ROUNDS_MAX; round++) {
		err = read_map(counted->fd, &now);
		if (err)
			return err;
		if (!is_below(&now, &before))
			break;
		before = now;
		restarted = true;
	}
	if (restarted) {
		counted->earlier.produced = add(counted->earlier.produced, counted->last.produced);
		counted->earlier.dropped = add(counted->earlier.dropped, counted->last.dropped);
		counted->restarts++;
	}
	counted->last = now;
	return 0;
}

/* ---- fork ---- */

static void handle_fork(struct lbl_fork_entry *entry, enum lbl_fork_phase phase)
{
	struct lbl_counted *each;

	(void)entry;
	if (phase == LBL_FORK_PREPARE) {
		pthread_mutex_lock(&lock);
		return;
	}
	if (phase == LBL_FORK_CHILD) {
		for (each = all; each; each = each->next) {
			update(each); /* if that fails, the last sums stay */
			each->frozen = true;
		}
		all = NULL; /* what the child opens is its own */
	}
	pthread_mutex_unlock(&lock);
}

static struct lbl_fork_entry fork_entry = { .rank = LBL_FORK_COUNTED, .handle = handle_fork };

static __attribute__((constructor)) void install(void)
{
	lbl_fork_register(&fork_entry);
}

/* ---- opening and closing ---- */

static int make(int fd, uint32_t id, struct lbl_counted **ret)
{
	struct lbl_counted *made = calloc(1, sizeof(*made));
	int err;

	if (!made)
		return -ENOMEM;
	err = read_map(fd, &made->last);
	if (!err) {
		made->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
		err = made->fd < 0 ? -errno : 0;
	}
	if (err) {
		free(made);
		return err;
	}
	made->id = id;
	made->next = all;
	*ret = all = made;
	return 0;
}

static int check_type(int fd, uint32_t *id)
{
	struct bpf_map_info info;
	int err = lbl_map_info(fd, &info);

	if (err)
		return err;
	if (info.type != BPF_MAP_TYPE_PERCPU_ARRAY ||
	    info.value_size != sizeof(struct lbl_counters))
		return -EINVAL;
	*id = info.id;
	return 0;
}

int lbl_counted_open(int fd, struct lbl_counted **ret)
{
	struct lbl_counted *found;
	uint32_t id;
	int err = check_type(fd, &id);

	if (err)
		return err;
	pthread_mutex_lock(&lock);
	for (found = all; found && found->id != id; found = found->next)
		;
	if (!found)
		err = make(fd, id, &found);
	if (!err) {
		found->refs++;
		*ret = found;
	}
	pthread_mutex_unlock(&lock);
	return err;
}

static void unlink_from_all(const struct lbl_counted *counted)
{
	struct lbl_counted **at = &all;

	while (*at && *at != counted)
		at = &(*at)->next;
	if (*at)
		*at = counted->next;
}

struct lbl_counted *lbl_counted_ref(struct lbl_counted *counted)
{
	if (!counted)
		return NULL;
	pthread_mutex_lock(&lock);
	counted->refs++;
	pthread_mutex_unlock(&lock);
	return counted;
}

void lbl_counted_unref(struct lbl_counted *counted)
{
	if (!counted)
		return;
	pthread_mutex_lock(&lock);
	if (!--counted->refs) {
		unlink_from_all(counted);
		close(counted->fd);
		free(counted);
	}
	pthread_mutex_unlock(&lock);
}

static void add_users(struct lbl_counted *counted, uint32_t n)
{
	if (!counted)
		return;
	pthread_mutex_lock(&lock);
	counted->users += n;
	pthread_mutex_unlock(&lock);
}

void lbl_counted_begin_use(struct lbl_counted *counted)
{
	add_users(counted, 1);
}

void lbl_counted_end_use(struct lbl_counted *counted)
{
	add_users(counted, -1U);
}

int lbl_counted_read(struct lbl_counted *counted, struct lbl_counted_reading *ret)
{
	int err;

	pthread_mutex_lock(&lock);
	err = counted->frozen ? 0 : update(counted);
	ret->sums.produced = add(counted->earlier.produced, counted->last.produced);
	ret->sums.dropped = add(counted->earlier.dropped, counted->last.dropped);
	ret->restarts = counted->restarts;
	ret->users = counted->users;
	pthread_mutex_unlock(&lock);
	return err;
}
