// SPDX-License-Identifier: MIT
/* Woken by a timer, or early as the ring fills. */
#include <semaphore.h>
#include <sys/epoll.h>

#include "base/thread.h"
#include "stream/follow.h"
#include "stream/thread.h"

enum {
	BUSY_WAIT_MS = 10, /* between drains while events arrive */
	IDLE_WAIT_MS = 250, /* longest wait while idle; a ring that fills up wakes the thread */
	LOOK_MS = 1000, /* between looks at the pin and the counters */
};

/* The less the counters have gone up unseen, the less is lost if a loader sets them to zero. */
static void look_around(struct lbl_stream *stream)
{
	struct lbl_counted_reading unused;
	struct lbl_counted *counters;

	lbl_follow(stream);
	pthread_mutex_lock(&stream->lock);
	counters = lbl_counted_ref(stream->counters);
	pthread_mutex_unlock(&stream->lock);
	if (counters)
		lbl_counted_read(counters, &unused);
	lbl_counted_unref(counters);
}

static bool is_used(struct lbl_stream *stream)
{
	uint32_t n_sinks;

	pthread_mutex_lock(&stream->lock);
	n_sinks = stream->n_sinks;
	pthread_mutex_unlock(&stream->lock);
	return n_sinks;
}

/* Drain, and return how long to wait then. `last`: what the call before returned, ms. */
static int drain_and_wait(struct lbl_stream *stream, int last)
{
	int64_t drained = lbl_stream_drain(stream);

	if (!is_used(stream))
		return LOOK_MS;
	if (drained)
		return lbl_ring_fill(&stream->ring) > stream->ring.mask / 4 ? 0 : BUSY_WAIT_MS;
	/* No records, or the next one is not submitted yet: back off, do not spin. */
	if (last < BUSY_WAIT_MS || last > IDLE_WAIT_MS)
		last = BUSY_WAIT_MS;
	return 2 * last > IDLE_WAIT_MS ? IDLE_WAIT_MS : 2 * last;
}

static void run(struct lbl_stream *stream)
{
	uint64_t look = lbl_now_ns();
	struct epoll_event event;
	int wait_ms = 0;

	while (!__atomic_load_n(&stream->stopping, __ATOMIC_ACQUIRE)) {
		if (lbl_now_ns() >= look) {
			look_around(stream);
			look = lbl_now_ns() + LOOK_MS * 1000000ULL;
		}
		wait_ms = drain_and_wait(stream, wait_ms);
		if (wait_ms)
			epoll_wait(stream->epoll_fd, &event, 1, wait_ms);
	}
}

/* What the thread is given at its start; it ends when the thread posts `begun`. */
struct start {
	struct lbl_stream *stream;
	struct lbl_holder *holder;
	sem_t begun;
	int err;
};

/* A ring in memory is nobody else's. Where others have consumed to is certain once it is claimed. */
static int begin(struct lbl_stream *stream, struct lbl_holder *holder)
{
	int err = 0;

	if (!stream->ring.memory) {
		err = lbl_claims_begin(&stream->claims);
		if (!err)
			err = lbl_claim_take(&stream->claims, stream->ring.consumer_pos, holder);
	}
	if (!err)
		lbl_stream_begin(stream);
	return err;
}

static void *drain_thread(void *arg)
{
	struct start *start = arg;
	struct lbl_stream *stream = start->stream;
	int err;

	pthread_setname_np(pthread_self(), "lbl-drain");
	err = start->err = begin(stream, start->holder);
	sem_post(&start->begun);
	if (err)
		return NULL;
	run(stream);
	lbl_wish_clear(&stream->wish);
	if (!stream->ring.memory)
		lbl_claim_drop(&stream->claims, stream->ring.consumer_pos);
	return NULL;
}

/* `control` excludes a fork() meanwhile. */
int lbl_stream_start(struct lbl_stream *stream, struct lbl_holder *holder)
{
	struct start start = { .stream = stream, .holder = holder };
	int err;

	sem_init(&start.begun, 0, 0);
	pthread_mutex_lock(&stream->control);
	err = lbl_thread_start(&stream->thread, drain_thread, &start);
	stream->running = !err;
	if (stream->running) {
		while (sem_wait(&start.begun)) /* a signal came */
			;
		err = start.err;
		if (err)
			lbl_stream_stop(stream);
	}
	pthread_mutex_unlock(&stream->control);
	sem_destroy(&start.begun);
	return err;
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
