// SPDX-License-Identifier: MIT
/* A bounded queue of decoded events for one subscriber. It never makes the drain wait. */
#include <stdlib.h>
#include <time.h>

#include "event/decode.h"
#include "stream/queue.h"
#include "stream/stream.h"

enum { STREAMS_MAX = 256 };

struct lbl_queue {
	struct lbl_fork_entry fork;
	pthread_mutex_t lock;
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

/* Threads that waited are not in the child, but destroying the condition would wait for them. */
static void handle_fork(struct lbl_fork_entry *entry, enum lbl_fork_phase phase)
{
	struct lbl_queue *queue = (struct lbl_queue *)entry;

	if (phase == LBL_FORK_PREPARE) {
		pthread_mutex_lock(&queue->lock);
		return;
	}
	if (phase == LBL_FORK_CHILD)
		init_filled(queue);
	pthread_mutex_unlock(&queue->lock);
}

int lbl_queue_new(uint32_t capacity, struct lbl_queue **ret)
{
	struct lbl_queue *queue;

	if (!capacity)
		return -EINVAL;
	queue = calloc(1, sizeof(*queue) + capacity * sizeof(queue->events[0]));
	if (!queue)
		return -ENOMEM;
	pthread_mutex_init(&queue->lock, NULL);
	init_filled(queue);
	queue->capacity = capacity;
	queue->fork.rank = 2;
	queue->fork.handle = handle_fork;
	lbl_fork_register(&queue->fork);
	*ret = queue;
	return 0;
}

void lbl_queue_free(struct lbl_queue *queue)
{
	uint32_t i;

	if (!queue)
		return;
	for (i = 0; i < queue->n_streams; i++) {
		lbl_stream_detach_queue(queue->streams[i], queue);
		lbl_stream_free(queue->streams[i]);
	}
	lbl_fork_unregister(&queue->fork);
	pthread_cond_destroy(&queue->filled);
	pthread_mutex_destroy(&queue->lock);
	free(queue);
}

int lbl_queue_subscribe(struct lbl_queue *queue, struct lbl_stream *stream)
{
	int err;

	if (queue->n_streams == STREAMS_MAX)
		return -ENOSPC;
	err = lbl_stream_attach_queue(stream, queue);
	if (!err)
		queue->streams[queue->n_streams++] = stream;
	return err;
}

void lbl_queue_push(struct lbl_queue *queue, const void *data, uint32_t len)
{
	struct lbl_decoded_event seen;

	if (lbl_decode(data, len, &seen))
		return;
	pthread_mutex_lock(&queue->lock);
	if (queue->head - queue->tail == queue->capacity) {
		lbl_owner_add(&queue->dropped, 1);
	} else {
		queue->events[queue->head++ % queue->capacity] = seen;
		pthread_cond_signal(&queue->filled);
	}
	pthread_mutex_unlock(&queue->lock);
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

	pthread_mutex_lock(&queue->lock);
	while (queue->head == queue->tail && !err)
		err = timeout_ms < 0 ? pthread_cond_wait(&queue->filled, &queue->lock)
				     : pthread_cond_timedwait(&queue->filled, &queue->lock, &until);
	for (popped = 0; popped < n && queue->tail != queue->head; popped++)
		ret[popped] = queue->events[queue->tail++ % queue->capacity];
	pthread_mutex_unlock(&queue->lock);
	return (int)popped;
}

uint64_t lbl_queue_dropped(const struct lbl_queue *queue)
{
	return READ_ONCE(&queue->dropped);
}
