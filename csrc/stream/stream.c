// SPDX-License-Identifier: MIT
/*
 * Drain thread of one ring, woken by a timer or early as the ring fills, and the list of sinks that
 * it feeds.
 */
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "stream/stream.h"

enum {
	BUSY_WAIT_MS = 10, /* between drains while events arrive */
	IDLE_WAIT_MS = 250, /* longest wait while idle; a ring that fills up wakes the thread */
};

/*
 * Drain only up to the producer position at the start: following a producer closely slows it down.
 */
static void drain(struct lbl_stream *stream)
{
	uint64_t end;

	pthread_mutex_lock(&stream->lock);
	end = lbl_drain_end(&stream->ring, &stream->counts);
	while (lbl_drain_batch(&stream->ring, end, stream->sinks, stream->n_sinks,
			       &stream->counts)) {
		pthread_mutex_unlock(&stream->lock);
		pthread_mutex_lock(&stream->lock);
	}
	pthread_mutex_unlock(&stream->lock);
}

int64_t lbl_stream_drain(struct lbl_stream *stream)
{
	uint64_t before = READ_ONCE(&stream->counts.received);

	if (stream->orphaned)
		return -ECHILD;
	drain(stream);
	return (int64_t)(READ_ONCE(&stream->counts.received) - before);
}

/* ---- the thread ---- */

static void *drain_thread(void *arg)
{
	struct lbl_stream *stream = arg;
	struct epoll_event event;
	int wait_ms = BUSY_WAIT_MS;

	pthread_setname_np(pthread_self(), "lbl-drain");
	while (!__atomic_load_n(&stream->stopping, __ATOMIC_ACQUIRE)) {
		uint64_t before = READ_ONCE(&stream->counts.received);

		drain(stream);
		if (READ_ONCE(&stream->counts.received) == before) {
			/*
			 * No records, or the next one is not submitted yet: back off, do not spin.
			 */
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

	/* The only possible error is a full counter, and that wakes the thread too. */
	if (write(stream->wake_fd, &one, sizeof(one)) < 0)
		return;
}

/* Block all signals in the drain thread: handlers belong to the program's threads. */
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

/* ---- sinks ---- */

/* Keep sinks sorted by serial: streams that share sinks must lock them in one order. */
static void add_sink(struct lbl_stream *stream, struct lbl_sink *sink, struct lbl_drain_counts *ret)
{
	uint32_t i;

	pthread_mutex_lock(&stream->lock);
	for (i = stream->n_sinks++; i && stream->sinks[i - 1]->serial > sink->serial; i--)
		stream->sinks[i] = stream->sinks[i - 1];
	stream->sinks[i] = sink;
	*ret = stream->counts;
	pthread_mutex_unlock(&stream->lock);
}

static void remove_sink(struct lbl_stream *stream, const struct lbl_sink *sink,
			struct lbl_drain_counts *ret)
{
	uint32_t i, kept = 0;

	pthread_mutex_lock(&stream->lock);
	for (i = 0; i < stream->n_sinks; i++) {
		if (stream->sinks[i] != sink)
			stream->sinks[kept++] = stream->sinks[i];
	}
	stream->n_sinks = kept;
	*ret = stream->counts;
	pthread_mutex_unlock(&stream->lock);
}

int lbl_stream_reserve(struct lbl_stream *stream)
{
	int err = 0;

	pthread_mutex_lock(&stream->control);
	if (stream->orphaned)
		err = -ECHILD;
	else if (stream->n_sinks + stream->n_reserved == LBL_SINKS_MAX)
		err = -ENOSPC;
	else
		stream->n_reserved++;
	pthread_mutex_unlock(&stream->control);
	return err;
}

void lbl_stream_release(struct lbl_stream *stream)
{
	pthread_mutex_lock(&stream->control);
	stream->n_reserved--;
	pthread_mutex_unlock(&stream->control);
}

int lbl_stream_attach_reserved(struct lbl_stream *stream, struct lbl_sink *sink,
			       struct lbl_drain_counts *ret)
{
	struct lbl_drain_counts unused;
	int err = 0;

	pthread_mutex_lock(&stream->control);
	add_sink(stream, sink, ret); /* first, so that the thread drains nothing past it */
	if (!stream->running)
		err = start_thread(stream);
	if (err)
		remove_sink(stream, sink, &unused);
	else
		lbl_ref(&stream->refs);
	stream->n_reserved--;
	pthread_mutex_unlock(&stream->control);
	return err;
}

int lbl_stream_attach(struct lbl_stream *stream, struct lbl_sink *sink,
		      struct lbl_drain_counts *ret)
{
	int err = lbl_stream_reserve(stream);

	return err ? err : lbl_stream_attach_reserved(stream, sink, ret);
}

void lbl_stream_detach(struct lbl_stream *stream, struct lbl_sink *sink,
		       struct lbl_drain_counts *ret)
{
	pthread_mutex_lock(&stream->control);
	lbl_stream_drain(stream);
	remove_sink(stream, sink, ret);
	if (!stream->n_sinks)
		lbl_stream_stop(stream);
	pthread_mutex_unlock(&stream->control);
}

/* ---- fork ---- */

/*
 * The child has no drain thread, must not steal events and must not keep the ring claimed. The
 * ring's contents belong to the parent, so the child's counts are frozen.
 */
static void orphan(struct lbl_stream *stream)
{
	stream->running = false;
	stream->orphaned = true;
	if (stream->claim_fd >= 0)
		close(stream->claim_fd);
	stream->claim_fd = -1;
}

void lbl_stream_handle_fork(struct lbl_fork_entry *entry, enum lbl_fork_phase phase)
{
	struct lbl_stream *stream = (struct lbl_stream *)entry;

	if (phase == LBL_FORK_PREPARE) {
		pthread_mutex_lock(&stream->control);
		pthread_mutex_lock(&stream->producing);
		pthread_mutex_lock(&stream->lock);
		return;
	}
	if (phase == LBL_FORK_CHILD)
		orphan(stream);
	pthread_mutex_unlock(&stream->lock);
	pthread_mutex_unlock(&stream->producing);
	pthread_mutex_unlock(&stream->control);
}

bool lbl_stream_alive(const struct lbl_stream *stream)
{
	return !stream->orphaned;
}
