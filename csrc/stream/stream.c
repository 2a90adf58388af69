// SPDX-License-Identifier: MIT
/* The thread that drains a ring, on a timer and early when it fills up, and who is told. */
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "record/shard.h"
#include "stream/drain.h"
#include "stream/open.h"
#include "stream/queue.h"
#include "stream/stream.h"

enum {
	BUSY_WAIT_MS = 10, /* between drains while events come */
	IDLE_WAIT_MS = 250, /* when none have come for long; a ring that fills up wakes sooner */
};

int64_t lbl_stream_drain(struct lbl_stream *stream)
{
	uint64_t before = READ_ONCE(&stream->received);

	if (stream->orphaned)
		return -ECHILD;
	lbl_drain(stream);
	return (int64_t)(READ_ONCE(&stream->received) - before);
}

/* ---- the thread ---- */

static void *drain_thread(void *arg)
{
	struct lbl_stream *stream = arg;
	struct epoll_event event;
	int wait_ms = BUSY_WAIT_MS;

	pthread_setname_np(pthread_self(), "lbl-drain");
	while (!__atomic_load_n(&stream->stopping, __ATOMIC_ACQUIRE)) {
		uint64_t before = READ_ONCE(&stream->received);

		lbl_drain(stream);
		if (READ_ONCE(&stream->received) == before) {
			/* Nothing came, or what is next was not submitted yet: no use in spinning. */
			wait_ms = 2 * wait_ms > IDLE_WAIT_MS ? IDLE_WAIT_MS : 2 * wait_ms;
		} else {
			wait_ms = BUSY_WAIT_MS;
			if (lbl_ring_fill(&stream->ring) > stream->ring.mask / 4)
				continue;
		}
		epoll_wait(stream->epoll_fd, &event, 1, wait_ms);
	}
	return NULL;
}

void lbl_stream_wake(struct lbl_stream *stream)
{
	uint64_t one = 1;

	/* Edge-triggered and never read: it cannot fail but by being full, which wakes as well. */
	if (write(stream->wake_fd, &one, sizeof(one)) < 0)
		return;
}

/* Signals are for the program's own threads. */
static int start_thread(struct lbl_stream *stream)
{
	sigset_t all, old;
	int err;

	stream->stopping = false;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&stream->thread, NULL, drain_thread, stream);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	stream->running = !err;
	return -err;
}

void lbl_stream_stop(struct lbl_stream *stream)
{
	if (!stream->running)
		return;
	__atomic_store_n(&stream->stopping, true, __ATOMIC_RELEASE);
	lbl_stream_wake(stream);
	pthread_join(stream->thread, NULL);
	stream->running = false;
}

/* ---- who is told ---- */

static void add_sink(struct lbl_stream *stream, void **sinks, uint32_t *n, void *sink)
{
	pthread_mutex_lock(&stream->lock);
	sinks[(*n)++] = sink;
	pthread_mutex_unlock(&stream->lock);
}

static void remove_sink(struct lbl_stream *stream, void **sinks, uint32_t *n, const void *sink)
{
	uint32_t i;

	pthread_mutex_lock(&stream->lock);
	for (i = 0; i < *n && sinks[i] != sink; i++)
		;
	if (i < *n)
		sinks[i] = sinks[--*n];
	pthread_mutex_unlock(&stream->lock);
}

static int attach(struct lbl_stream *stream, void **sinks, uint32_t *n, void *sink)
{
	int err = 0;

	pthread_mutex_lock(&stream->control);
	if (stream->orphaned)
		err = -ECHILD;
	else if (*n == LBL_SINKS_MAX)
		err = -ENOSPC;
	if (!err) {
		add_sink(stream, sinks, n, sink);
		if (!stream->running)
			err = start_thread(stream);
		if (err)
			remove_sink(stream, sinks, n, sink);
		else
			lbl_ref(&stream->refs);
	}
	pthread_mutex_unlock(&stream->control);
	return err;
}

static void detach(struct lbl_stream *stream, void **sinks, uint32_t *n, const void *sink)
{
	pthread_mutex_lock(&stream->control);
	lbl_stream_drain(stream);
	remove_sink(stream, sinks, n, sink);
	if (!stream->n_shards && !stream->n_queues)
		lbl_stream_stop(stream);
	pthread_mutex_unlock(&stream->control);
}

int lbl_stream_attach(struct lbl_stream *stream, struct lbl_shard *shard)
{
	return attach(stream, (void **)stream->shards, &stream->n_shards, shard);
}

void lbl_stream_detach(struct lbl_stream *stream, struct lbl_shard *shard)
{
	detach(stream, (void **)stream->shards, &stream->n_shards, shard);
}

int lbl_stream_attach_queue(struct lbl_stream *stream, struct lbl_queue *queue)
{
	return attach(stream, (void **)stream->queues, &stream->n_queues, queue);
}

void lbl_stream_detach_queue(struct lbl_stream *stream, struct lbl_queue *queue)
{
	detach(stream, (void **)stream->queues, &stream->n_queues, queue);
}

/* ---- fork ---- */

static void lock_all(struct lbl_stream *stream)
{
	uint32_t i;

	pthread_mutex_lock(&stream->control);
	pthread_mutex_lock(&stream->producing);
	pthread_mutex_lock(&stream->lock);
	for (i = 0; i < stream->n_shards; i++)
		pthread_mutex_lock(&stream->shards[i]->lock);
}

static void unlock_all(struct lbl_stream *stream)
{
	uint32_t i;

	for (i = 0; i < stream->n_shards; i++)
		pthread_mutex_unlock(&stream->shards[i]->lock);
	pthread_mutex_unlock(&stream->lock);
	pthread_mutex_unlock(&stream->producing);
	pthread_mutex_unlock(&stream->control);
}

/* The child has no drain thread and must not steal events; nor may it keep the ring claimed. */
void lbl_stream_handle_fork(struct lbl_fork_entry *entry, enum lbl_fork_phase phase)
{
	struct lbl_stream *stream = (struct lbl_stream *)entry;

	if (phase == LBL_FORK_PREPARE) {
		lock_all(stream);
		return;
	}
	if (phase == LBL_FORK_CHILD) {
		stream->running = false;
		stream->orphaned = true;
		close(stream->claim_fd);
		stream->claim_fd = -1;
	}
	unlock_all(stream);
}

bool lbl_stream_alive(const struct lbl_stream *stream)
{
	return !stream->orphaned;
}
