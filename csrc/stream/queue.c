// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/thread.h"
#include "base/util.h"
#include "event/decode.h"
#include "stream/open.h"
#include "stream/queue.h"

struct lbl_queue {
	struct lbl_sink sink;
	pthread_cond_t filled;
	struct lbl_stream **streams;
	size_t n_streams;
	uint64_t dropped;
	uint64_t head, tail; /* events pushed and popped so far */
	struct lbl_decoded_event *events;
	uint32_t capacity;
	bool closing, closed;
	int fd; /* an eventfd, or -1 until a reader asks for it */
	bool fd_is_readable;
};

static struct lbl_queue *queue_of(struct lbl_sink *sink)
{
	return (struct lbl_queue *)sink;
}

static void take_record(struct lbl_sink *sink, const void *data, uint32_t len)
{
	struct lbl_queue *queue = queue_of(sink);
	struct lbl_decoded_event *event;

	if (queue->head - queue->tail < queue->capacity) {
		event = &queue->events[queue->head % queue->capacity];
		queue->head += !lbl_decode(data, len, event);
	} else {
		struct lbl_decoded_event unused;

		lbl_owner_add(&queue->dropped, !lbl_decode(data, len, &unused));
	}
}

static void take_burst(struct lbl_sink *sink, const void *first, uint32_t n)
{
	const char *at = first;

	for (; n; n--, at += LBL_EVENT_STRIDE)
		take_record(sink, at, LBL_EVENT_BYTES);
}

/* Make the fd readable while events wait, and for good once the queue is closed. */
static void update_fd(struct lbl_queue *queue)
{
	bool readable = queue->closed || queue->head != queue->tail;

	if (queue->fd < 0 || readable == queue->fd_is_readable)
		return;
	if (readable)
		eventfd_write(queue->fd, 1);
	else
		eventfd_read(queue->fd, &(eventfd_t){ 0 });
	queue->fd_is_readable = readable;
}

static void wake_reader(struct lbl_sink *sink)
{
	struct lbl_queue *queue = queue_of(sink);

	if (queue->head == queue->tail)
		return;
	update_fd(queue);
	pthread_cond_broadcast(&queue->filled);
}

/*
 * The parent and the child share the eventfd, so each would take the other's signals: the child puts
 * one of its own in its place.
 */
static void replace_fd(struct lbl_queue *queue)
{
	int own = eventfd(queue->fd_is_readable, EFD_CLOEXEC | EFD_NONBLOCK);

	if (own < 0 || dup3(own, queue->fd, O_CLOEXEC) < 0) {
		close(queue->fd);
		queue->fd = -1;
	}
	if (own >= 0)
		close(own);
}

/* The child has no waiting threads, but destroying the condition would wait for them. */
static void handle_fork(struct lbl_sink *sink)
{
	struct lbl_queue *queue = queue_of(sink);

	lbl_cond_init(&queue->filled);
	if (queue->fd >= 0)
		replace_fd(queue);
}

static const struct lbl_sink_ops queue_ops = {
	.burst = take_burst,
	.record = take_record,
	.end = wake_reader,
	.forked = handle_fork,
};

int lbl_queue_new(uint32_t capacity, struct lbl_queue **ret)
{
	struct lbl_queue *queue;

	if (!capacity || capacity > LBL_QUEUE_EVENTS_MAX)
		return -EINVAL;
	queue = calloc(1, sizeof(*queue));
	if (!queue)
		return -ENOMEM;
	queue->events = calloc(capacity, sizeof(*queue->events));
	if (!queue->events) {
		free(queue);
		return -ENOMEM;
	}
	lbl_cond_init(&queue->filled);
	queue->capacity = capacity;
	queue->fd = -1;
	lbl_sink_init(&queue->sink, &queue_ops);
	*ret = queue;
	return 0;
}

/* Detaching takes the locks of the streams, which come before the queue's. */
static void unsubscribe(struct lbl_queue *queue)
{
	struct lbl_drain_counts unused;
	size_t i;

	for (i = 0; i < queue->n_streams; i++) {
		lbl_stream_detach(queue->streams[i], &queue->sink, &unused);
		lbl_stream_free(queue->streams[i]);
	}
}

void lbl_queue_close(struct lbl_queue *queue)
{
	bool is_first;

	pthread_mutex_lock(&queue->sink.lock);
	is_first = !queue->closing;
	queue->closing = true;
	pthread_mutex_unlock(&queue->sink.lock);
	if (!is_first)
		return;
	unsubscribe(queue);
	pthread_mutex_lock(&queue->sink.lock);
	queue->closed = true;
	queue->tail = queue->head;
	free(queue->events);
	queue->events = NULL;
	update_fd(queue);
	pthread_cond_broadcast(&queue->filled);
	pthread_mutex_unlock(&queue->sink.lock);
}

void lbl_queue_free(struct lbl_queue *queue)
{
	if (!queue)
		return;
	lbl_queue_close(queue);
	lbl_sink_destroy(&queue->sink);
	pthread_cond_destroy(&queue->filled);
	if (queue->fd >= 0)
		close(queue->fd);
	free(queue->streams);
	free(queue);
}

int lbl_queue_subscribe(struct lbl_queue *queue, struct lbl_stream *stream)
{
	struct lbl_stream **more;
	struct lbl_drain_counts unused;
	int err;

	more = realloc(queue->streams, (queue->n_streams + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	queue->streams = more;
	err = lbl_stream_attach(stream, &queue->sink, &unused);
	if (!err)
		queue->streams[queue->n_streams++] = stream;
	return err;
}

int lbl_queue_pop(struct lbl_queue *queue, int timeout_ms, uint32_t n,
		  struct lbl_decoded_event *ret)
{
	uint64_t until_ns = lbl_now_ns() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms) * 1000000;
	uint32_t popped;
	int err = 0;

	pthread_mutex_lock(&queue->sink.lock);
	while (queue->head == queue->tail && !queue->closed && !err)
		err = timeout_ms < 0 ? pthread_cond_wait(&queue->filled, &queue->sink.lock)
				     : lbl_cond_wait(&queue->filled, &queue->sink.lock, until_ns);
	for (popped = 0; popped < n && queue->tail != queue->head; popped++)
		ret[popped] = queue->events[queue->tail++ % queue->capacity];
	update_fd(queue);
	pthread_mutex_unlock(&queue->sink.lock);
	return (int)popped;
}

int lbl_queue_fd(struct lbl_queue *queue)
{
	int fd;

	pthread_mutex_lock(&queue->sink.lock);
	if (queue->fd < 0) {
		queue->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		queue->fd_is_readable = false;
	}
	fd = queue->fd < 0 ? -errno : queue->fd;
	update_fd(queue);
	pthread_mutex_unlock(&queue->sink.lock);
	return fd;
}

uint32_t lbl_queue_waiting(struct lbl_queue *queue)
{
	uint32_t waiting;

	pthread_mutex_lock(&queue->sink.lock);
	waiting = (uint32_t)(queue->head - queue->tail);
	pthread_mutex_unlock(&queue->sink.lock);
	return waiting;
}

uint64_t lbl_queue_dropped(const struct lbl_queue *queue)
{
	return READ_ONCE(&queue->dropped);
}
