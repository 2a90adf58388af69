// SPDX-License-Identifier: MIT
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "stream/follow.h"
#include "stream/open.h"
#include "stream/stream.h"
#include "stream/thread.h"

static struct lbl_stream *stream_new(void)
{
	struct lbl_stream *stream = calloc(1, sizeof(*stream));

	if (!stream)
		return NULL;
	pthread_mutex_init(&stream->control, NULL);
	pthread_mutex_init(&stream->lock, NULL);
	pthread_mutex_init(&stream->producing, NULL);
	stream->ring_fd = stream->epoll_fd = stream->wake_fd = -1;
	stream->attached = true;
	stream->refs = 1;
	stream->fork.rank = LBL_FORK_STREAM;
	stream->fork.handle = lbl_stream_handle_fork;
	lbl_fork_register(&stream->fork);
	return stream;
}

void lbl_stream_free(struct lbl_stream *stream)
{
	if (!stream || !lbl_unref(&stream->refs))
		return;
	lbl_fork_unregister(&stream->fork);
	lbl_stream_stop(stream);
	lbl_ring_unmap(&stream->ring);
	if (stream->consumes)
		lbl_counted_end_use(stream->counters);
	lbl_counted_unref(stream->counters);
	lbl_pin_free(&stream->pin);
	lbl_close(stream->ring_fd);
	lbl_close(stream->epoll_fd);
	lbl_close(stream->wake_fd);
	pthread_mutex_destroy(&stream->producing);
	pthread_mutex_destroy(&stream->lock);
	pthread_mutex_destroy(&stream->control);
	free(stream);
}

static int open_wait(struct lbl_stream *stream)
{
	stream->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	stream->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (stream->epoll_fd < 0 || stream->wake_fd < 0)
		return -errno;
	return lbl_stream_watch(stream, stream->wake_fd);
}

static int start_on(struct lbl_stream *stream, const struct lbl_inlet *inlet,
		    const struct lbl_pin *pin, struct lbl_holder *holder)
{
	int err;

	lbl_stream_put(stream, inlet);
	err = lbl_pin_copy(pin, &stream->pin);
	if (!err)
		err = open_wait(stream);
	if (!err && inlet->fd >= 0)
		err = lbl_stream_watch(stream, inlet->fd);
	return err ? err : lbl_stream_start(stream, holder);
}

/* Make a stream of what `inlet` holds, which is the stream's from now on. */
static int open_on(struct lbl_inlet *inlet, const struct lbl_pin *pin, struct lbl_holder *holder,
		   struct lbl_stream **ret)
{
	struct lbl_stream *stream = stream_new();
	int err;

	if (!stream) {
		lbl_inlet_close(inlet);
		return -ENOMEM;
	}
	err = start_on(stream, inlet, pin, holder);
	if (err)
		lbl_stream_free(stream);
	else
		*ret = stream;
	return err;
}

int lbl_stream_open(int ring_fd, int counters_fd, const struct lbl_pin *pin,
		    struct lbl_holder *holder, struct lbl_stream **ret)
{
	struct lbl_inlet inlet;
	int err = lbl_inlet_open(ring_fd, counters_fd, &inlet);

	return err ? err : open_on(&inlet, pin, holder, ret);
}

int lbl_stream_memory(uint32_t bytes, struct lbl_stream **ret)
{
	struct lbl_holder unused;
	struct lbl_inlet inlet;
	int err = lbl_inlet_memory(bytes, &inlet);

	return err ? err : open_on(&inlet, NULL, &unused, ret);
}

/* Counts and wakes up as lbl_emit() in lblatency.bpf.h does. */
int lbl_stream_produce(struct lbl_stream *stream, const void *data, uint32_t len)
{
	uint64_t quarter = (stream->ring.mask + 1) / 4, fill;
	int err;

	if (stream->orphaned)
		return -ECHILD;
	pthread_mutex_lock(&stream->producing);
	err = lbl_ring_produce(&stream->ring, data, len);
	lbl_owner_add(&stream->produced.produced, err != -EINVAL);
	lbl_owner_add(&stream->produced.dropped, err == -ENOSPC);
	fill = lbl_ring_fill(&stream->ring);
	pthread_mutex_unlock(&stream->producing);
	if (!err && fill >= quarter && (fill & (quarter - 1)) < lbl_ring_stride(len))
		lbl_stream_wake(stream);
	return err;
}
