// SPDX-License-Identifier: MIT
#include <bpf/bpf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "kernel/maps.h"
#include "stream/open.h"
#include "stream/stream.h"

static struct lbl_stream *stream_new(void)
{
	struct lbl_stream *stream = calloc(1, sizeof(*stream));

	if (!stream)
		return NULL;
	pthread_mutex_init(&stream->control, NULL);
	pthread_mutex_init(&stream->lock, NULL);
	pthread_mutex_init(&stream->producing, NULL);
	stream->ring_fd = stream->claim_fd = -1;
	stream->epoll_fd = stream->wake_fd = -1;
	stream->refs = 1;
	stream->fork.rank = LBL_FORK_STREAM;
	stream->fork.handle = lbl_stream_handle_fork;
	lbl_fork_register(&stream->fork);
	return stream;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void lbl_stream_free(struct lbl_stream *stream)
{
	if (!stream || !lbl_unref(&stream->refs))
		return;
	lbl_fork_unregister(&stream->fork);
	lbl_stream_stop(stream);
	lbl_ring_unmap(&stream->ring);
	lbl_counted_close(stream->counters);
	close_fd(&stream->ring_fd);
	close_fd(&stream->claim_fd);
	close_fd(&stream->epoll_fd);
	close_fd(&stream->wake_fd);
	pthread_mutex_destroy(&stream->producing);
	pthread_mutex_destroy(&stream->lock);
	pthread_mutex_destroy(&stream->control);
	free(stream);
}

/* Edge-triggered: a ring under load is always readable, but not always worth a drain. */
static int watch(const struct lbl_stream *stream, int fd)
{
	struct epoll_event edge = { .events = EPOLLIN | EPOLLET };

	return epoll_ctl(stream->epoll_fd, EPOLL_CTL_ADD, fd, &edge) ? -errno : 0;
}

static int open_wait(struct lbl_stream *stream)
{
	stream->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	stream->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (stream->epoll_fd < 0 || stream->wake_fd < 0)
		return -errno;
	return watch(stream, stream->wake_fd);
}

static int duplicate(int fd, int *ret)
{
	*ret = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return *ret < 0 ? -errno : 0;
}

/*
 * Claim the ring, since two consumers would split its events. The kernel releases an abstract
 * socket address when its owner exits.
 */
static int claim(struct lbl_stream *stream, uint32_t map_id)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int len;

	len = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "lblatency/ring/%u", map_id);
	stream->claim_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (stream->claim_fd < 0)
		return -errno;
	if (!bind(stream->claim_fd, (struct sockaddr *)&name,
		  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len)))
		return 0;
	return errno == EADDRINUSE ? -EBUSY : -errno;
}

/* Counters that may not be read are as good as none. */
static int open_counters(struct lbl_stream *stream, int fd)
{
	int err = fd < 0 ? 0 : lbl_counted_open(fd, &stream->counters);

	return err == -EPERM || err == -EACCES ? 0 : err;
}

static int open_ring(struct lbl_stream *stream, int fd)
{
	struct bpf_map_info info;
	int err;

	err = lbl_map_info(fd, &info);
	if (err)
		return err;
	if (info.type != BPF_MAP_TYPE_RINGBUF)
		return -EINVAL;
	err = claim(stream, info.id);
	if (!err)
		err = duplicate(fd, &stream->ring_fd);
	if (!err)
		err = lbl_ring_map(&stream->ring, stream->ring_fd, info.max_entries);
	if (err)
		return err;
	stream->never_consumed = !*stream->ring.consumer_pos;
	return watch(stream, stream->ring_fd);
}

int lbl_stream_open(int ring_fd, int counters_fd, struct lbl_stream **ret)
{
	struct lbl_stream *stream = stream_new();
	int err;

	if (!stream)
		return -ENOMEM;
	err = open_wait(stream);
	if (!err)
		err = open_ring(stream, ring_fd);
	if (!err)
		err = open_counters(stream, counters_fd);
	if (err)
		lbl_stream_free(stream);
	else
		*ret = stream;
	return err;
}

int lbl_stream_memory(uint32_t bytes, struct lbl_stream **ret)
{
	struct lbl_stream *stream = stream_new();
	int err;

	if (!stream)
		return -ENOMEM;
	err = open_wait(stream);
	if (!err)
		err = lbl_ring_memory(&stream->ring, bytes);
	if (err)
		lbl_stream_free(stream);
	else
		*ret = stream;
	return err;
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
