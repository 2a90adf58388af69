// SPDX-License-Identifier: MIT
#include <stdlib.h>
#include <time.h>

#include "base/util.h"
#include "event/decode.h"
#include "stream/open.h"
#include "stream/queue.h"

enum { STREAMS_MAX = 256 };

struct lbl_queue {
	struct lbl_sink sink;
	pthread_cond_t filled;
	struct lbl_stream *streams[STREAMS_MAX];
	uint32_t n_streams;
	uint64_t dropped;
	uint64_t head, tail; /* events pushed and popped so far */
	uint32_t capacity;
	struct lbl_decoded_event events[];
};

static void init_filled(struct lbl_queue *queue)
{
	pthread_condattr_t monotonic;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&queue->filled, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

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

static void wake_reader(struct lbl_sink *sink)
{
	struct lbl_queue *queue = queue_of(sink);

	if (queue->head != queue->tail)
		pthread_cond_broadcast(&queue->filled);
}

/* The child has no waiting threads, but destroying the condition would wait for them. */
static void forget_waiters(struct lbl_sink *sink)
{
	init_filled(queue_of(sink));
}

static const struct lbl_sink_ops queue_ops = {
	.burst = take_burst,
	.record = take_record,
	.end = wake_reader,
	.forked = forget_waiters,
};

int lbl_queue_new(uint32_t capacity, struct lbl_queue **ret)
{
	struct lbl_queue *queue;

	if (!capacity)
		return -EINVAL;
	queue = calloc(1, sizeof(*queue) + capacity * sizeof(queue->events[0]));
	if (!queue)
		return -ENOMEM;
	init_filled(queue);
	queue->capacity = capacity;
	lbl_sink_init(&queue->sink, &queue_ops);
	*ret = queue;
	return 0;
}

void lbl_queue_free(struct lbl_queue *queue)
{
	struct lbl_drain_counts unused;
	uint32_t i;

	if (!queue)
		return;
	for (i = 0; i < queue->n_streams; i++) {
		lbl_stream_detach(queue->streams[i], &queue->sink, &unused);
		lbl_stream_free(queue->streams[i]);
	}
	lbl_sink_destroy(&queue->sink);
	pthread_cond_destroy(&queue->filled);
	free(queue);
}

int lbl_queue_subscribe(struct lbl_queue *queue, struct lbl_stream *stream)
{
	struct lbl_drain_counts unused;
	int err;

	if (queue->n_streams == STREAMS_MAX)
		return -ENOSPC;
	err = lbl_stream_attach(stream, &queue->sink, &unused);
	if (!err)
		queue->streams[queue->n_streams++] = stream;
	return err;
}

static struct timespec deadline_in(int ms)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	at.tv_sec += ms / 1000;
	at.tv_nsec += ms % 1000 * 1000000L;
	if (at.tv_nsec >= 1000000000) {
		at.tv_nsec -= 1000000000;
		at.tv_sec++;
	}
	return at;
}

int lbl_queue_pop(struct lbl_queue *queue, int timeout_ms, uint32_t n,
		  struct lbl_decoded_event *ret)
{
	struct timespec until = deadline_in(timeout_ms < 0 ? 0 : timeout_ms);
	uint32_t popped;
	int err = 0;

	pthread_mutex_lock(&queue->sink.lock);
	while (queue->head == queue->tail && !err)
		err = timeout_ms < 0
			      ? pthread_cond_wait(&queue->filled, &queue->sink.lock)
			      : pthread_cond_timedwait(&queue->filled, &queue->sink.lock, &until);
	for (popped = 0; popped < n && queue->tail != queue->head; popped++)
		ret[popped] = queue->events[queue->tail++ % queue->capacity];
	pthread_mutex_unlock(&queue->sink.lock);
	return (int)popped;
}

uint64_t lbl_queue_dropped(const struct lbl_queue *queue)
{
	return READ_ONCE(&queue->dropped);
}
