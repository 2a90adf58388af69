// SPDX-License-Identifier: MIT
/* A stream's ring, and the list of sinks that it feeds. */
#include <sys/epoll.h>
#include <unistd.h>

#include "stream/stream.h"

/*
 * Drain only up to the producer position at the start: following a producer closely slows it down.
 * Between batches, the sinks and the ring may be replaced.
 */
static void drain(struct lbl_stream *stream)
{
	uint64_t end = 0, replaced;

	pthread_mutex_lock(&stream->lock);
	replaced = stream->counts.replaced;
	if (stream->n_sinks)
		end = lbl_drain_end(&stream->ring, &stream->counts);
	while (stream->n_sinks && replaced == stream->counts.replaced &&
	       lbl_drain_batch(&stream->ring, end, stream->sinks, stream->n_sinks,
			       &stream->counts)) {
		pthread_mutex_unlock(&stream->lock);
		pthread_mutex_lock(&stream->lock);
	}
	lbl_ring_look(&stream->ring, lbl_now_ns());
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

void lbl_stream_put(struct lbl_stream *stream, const struct lbl_inlet *inlet)
{
	stream->ring = inlet->ring;
	stream->counters = inlet->counters;
	stream->ring_fd = inlet->fd;
	stream->map_id = inlet->map_id;
}

void lbl_stream_begin(struct lbl_stream *stream)
{
	lbl_counted_begin_use(stream->counters);
	stream->consumes = true;
	lbl_drain_begin(&stream->ring, &stream->counts);
	stream->never_consumed = !stream->ring.position;
}

bool lbl_stream_attached(const struct lbl_stream *stream)
{
	return READ_ONCE(&stream->attached);
}

/* ---- what wakes the thread ---- */

/* Edge-triggered: a ring under load is always readable, but not always worth a drain. */
int lbl_stream_watch(struct lbl_stream *stream, int fd)
{
	struct epoll_event edge = { .events = EPOLLIN | EPOLLET };

	return epoll_ctl(stream->epoll_fd, EPOLL_CTL_ADD, fd, &edge) ? -errno : 0;
}

/* Closing the fd is not enough: the file may be open elsewhere. */
void lbl_stream_unwatch(struct lbl_stream *stream, int fd)
{
	epoll_ctl(stream->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

void lbl_stream_wake(struct lbl_stream *stream)
{
	uint64_t one = 1;

	/* The only possible error is a full counter, and that wakes the thread too. */
	if (write(stream->wake_fd, &one, sizeof(one)) < 0)
		return;
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

void lbl_stream_attach_reserved(struct lbl_stream *stream, struct lbl_sink *sink,
				struct lbl_drain_counts *ret)
{
	pthread_mutex_lock(&stream->control);
	add_sink(stream, sink, ret);
	lbl_ref(&stream->refs);
	stream->n_reserved--;
	pthread_mutex_unlock(&stream->control);
	lbl_stream_wake(stream);
}

int lbl_stream_attach(struct lbl_stream *stream, struct lbl_sink *sink,
		      struct lbl_drain_counts *ret)
{
	int err = lbl_stream_reserve(stream);

	if (!err)
		lbl_stream_attach_reserved(stream, sink, ret);
	return err;
}

void lbl_stream_detach(struct lbl_stream *stream, struct lbl_sink *sink,
		       struct lbl_drain_counts *ret)
{
	pthread_mutex_lock(&stream->control);
	lbl_stream_drain(stream);
	remove_sink(stream, sink, ret);
	pthread_mutex_unlock(&stream->control);
}

/* ---- fork ---- */

/*
 * The child has no drain thread and must not steal events: the claim is the parent's, and so are the
 * ring's contents. Its counts are frozen.
 */
static void orphan(struct lbl_stream *stream)
{
	stream->running = false;
	stream->orphaned = true;
	stream->attached = false;
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
