/* SPDX-License-Identifier: MIT */
/* Set-up shared by several C tests. */
#ifndef LBL_COMMON_H
#define LBL_COMMON_H

#include <fcntl.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "check.h"
#include "kernel/counters.h"
#include "kernel/maps.h"
#include "record/burst.h"
#include "stream/ledger.h"
#include "stream/open.h"
#include "stream/queue.h"
#include "stream/thread.h"
#include "track/backend.h"
#include "track/snapshot.h"
#include "track/state.h"

#define SECOND 1000000000ULL

/* While true, calloc() and mprotect() fail: the tests are linked with --wrap for these. */
static __attribute__((unused)) bool no_memory;

/* If not 0, the number of the first call that fails; all later calls fail as well. */
static __attribute__((unused)) uint32_t memory_ends_at;

static inline bool is_refused(void)
{
	if (memory_ends_at && !--memory_ends_at)
		no_memory = true;
	return no_memory;
}

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);

void *__wrap_calloc(size_t n, size_t size)
{
	return is_refused() ? NULL : __real_calloc(n, size);
}

int __real_mprotect(void *p, size_t size, int protection);
int __wrap_mprotect(void *p, size_t size, int protection);

int __wrap_mprotect(void *p, size_t size, int protection)
{
	return is_refused() ? -1 : __real_mprotect(p, size, protection);
}

/* Counters maps of the tests are files in memory that hold a struct lbl_counters. */
static inline int make_counters(void)
{
	int fd = memfd_create("counters", MFD_CLOEXEC);

	REQUIRE(fd >= 0 && !ftruncate(fd, sizeof(struct lbl_counters)));
	return fd;
}

/* Rings of the tests are files, too. The second view of the data is apart from the first. */
enum { FILE_RING_BYTES = 4096, FILE_RING_SIZE = 2 * 4096 + 2 * FILE_RING_BYTES };

int __wrap_lbl_map_info(int fd, struct bpf_map_info *ret);

int __wrap_lbl_map_info(int fd, struct bpf_map_info *ret)
{
	struct stat file;

	if (fstat(fd, &file))
		return -errno;
	*ret = (struct bpf_map_info){ .type = BPF_MAP_TYPE_PERCPU_ARRAY,
				      .id = (uint32_t)file.st_ino,
				      .value_size = (uint32_t)file.st_size };
	if (file.st_size == FILE_RING_SIZE) {
		ret->type = BPF_MAP_TYPE_RINGBUF;
		ret->max_entries = FILE_RING_BYTES;
	}
	return 0;
}

int64_t __wrap_lbl_map_id(int fd);

int64_t __wrap_lbl_map_id(int fd)
{
	struct bpf_map_info info = { 0 };
	int err = __wrap_lbl_map_info(fd, &info);

	return err ? err : (int64_t)info.id;
}

int __wrap_lbl_map_by_path(const char *path);

int __wrap_lbl_map_by_path(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int __wrap_lbl_counters_find(const char *path, int ring_fd);

int __wrap_lbl_counters_find(const char *path, int ring_fd)
{
	(void)path;
	(void)ring_fd;
	return -ENOENT;
}

/* Files cannot be waited for. */
int __real_epoll_ctl(int fd, int op, int of, struct epoll_event *event);
int __wrap_epoll_ctl(int fd, int op, int of, struct epoll_event *event);

int __wrap_epoll_ctl(int fd, int op, int of, struct epoll_event *event)
{
	int err = __real_epoll_ctl(fd, op, of, event);

	return err && errno == EPERM ? 0 : err;
}

int __wrap_lbl_counters_sum(int fd, uint64_t *sums, size_t count);

int __wrap_lbl_counters_sum(int fd, uint64_t *sums, size_t count)
{
	ssize_t size = (ssize_t)(count * sizeof(*sums));

	return pread(fd, sums, (size_t)size, 0) == size ? 0 : -errno;
}

/* If set, returns how long epoll_wait() waits instead of the requested time. */
static __attribute__((unused)) int (*choose_wait)(int timeout_ms);

int __real_epoll_wait(int fd, struct epoll_event *events, int max, int timeout_ms);
int __wrap_epoll_wait(int fd, struct epoll_event *events, int max, int timeout_ms);

int __wrap_epoll_wait(int fd, struct epoll_event *events, int max, int timeout_ms)
{
	return __real_epoll_wait(fd, events, max,
				 choose_wait ? choose_wait(timeout_ms) : timeout_ms);
}

/* If set, waits for a condition return at once, and this receives their deadline. */
static __attribute__((unused)) struct timespec *deadline;

int __real_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *lock,
				  const struct timespec *until);
int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *lock,
				  const struct timespec *until);

int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *lock,
				  const struct timespec *until)
{
	if (!deadline)
		return __real_pthread_cond_timedwait(condition, lock, until);
	*deadline = *until;
	return ETIMEDOUT;
}

static inline uint64_t now_ns(clockid_t clock)
{
	struct timespec at;

	REQUIRE(!clock_gettime(clock, &at));
	return (uint64_t)at.tv_sec * SECOND + (uint64_t)at.tv_nsec;
}

static inline void ignore_burst(struct lbl_sink *sink, const void *first, uint32_t n)
{
	(void)sink;
	(void)first;
	(void)n;
}

static inline void ignore_record(struct lbl_sink *sink, const void *data, uint32_t len)
{
	(void)sink;
	(void)data;
	(void)len;
}

/* Stop the stream's thread and attach a sink that ignores all, so that only the test drains. */
static inline void drain_by_hand(struct lbl_stream *stream)
{
	static const struct lbl_sink_ops ops = { .burst = ignore_burst, .record = ignore_record };
	static struct lbl_sink sink = { .ops = &ops, .lock = PTHREAD_MUTEX_INITIALIZER };

	lbl_stream_stop(stream);
	stream->sinks[stream->n_sinks++] = &sink;
}

/* Return whether another thread's count reaches `n` within 20 s. */
static inline bool comes_to(const uint64_t *count, uint64_t n)
{
	uint64_t start = now_ns(CLOCK_MONOTONIC);

	while (READ_ONCE(count) != n) {
		if (now_ns(CLOCK_MONOTONIC) - start > 20 * SECOND)
			return false;
		sched_yield();
	}
	return true;
}

static inline struct lbl_buckets *make_buckets(void)
{
	static const uint64_t bounds[] = { SECOND / 1000, SECOND, 3600 * SECOND };
	struct lbl_buckets *buckets;

	REQUIRE(!lbl_buckets_new(bounds, 3, &buckets));
	return buckets;
}

/* Record lifetimes only, or all latencies. */
static inline struct lbl_tracker *make_tracker(uint32_t max_backends, bool with_all)
{
	struct lbl_buckets *buckets = make_buckets(), *each[LBL_METRICS] = { buckets };
	struct lbl_tracker *tracker;
	uint32_t i;

	for (i = 0; i < LBL_METRICS && with_all; i++)
		each[i] = buckets;
	REQUIRE(!lbl_tracker_new(each, max_backends, &tracker));
	lbl_buckets_free(buckets);
	return tracker;
}

/* A shard without a tracker, with its own set of names. All connections count as open. */
static inline struct lbl_shard *make_shard(uint32_t capacity, bool with_all)
{
	struct lbl_buckets *buckets = make_buckets(), *each[LBL_METRICS] = { buckets };
	struct lbl_intern *names = lbl_intern_new();
	struct lbl_shared *shared = malloc(sizeof(*shared));
	struct lbl_shard *shard;
	uint32_t i;

	REQUIRE(names && shared);
	lbl_shared_init(shared);
	lbl_shared_set_horizon(shared, 0);
	for (i = 0; i < LBL_METRICS && with_all; i++)
		each[i] = buckets;
	REQUIRE(!lbl_shard_new(each, capacity, names, &lbl_shard_ops, shared, &shard));
	lbl_buckets_free(buckets);
	return shard;
}

static inline void free_shard(struct lbl_shard *shard)
{
	struct lbl_intern *names = shard->proxies.names;
	struct lbl_shared *shared = shard->shared;

	lbl_shard_free(shard);
	lbl_intern_free(names);
	lbl_shared_destroy(shared);
	free(shared);
}

/* Read streams by a ledger of their own. */
static inline struct lbl_stream_stats read_streams(struct lbl_stream *const *streams, size_t n)
{
	struct lbl_stream_stats stats;
	struct lbl_ledger *ledger;

	REQUIRE(!lbl_ledger_new(streams, n, &ledger) && !lbl_ledger_read(ledger, &stats));
	lbl_ledger_free(ledger);
	return stats;
}

/* Start on one or more streams. */
static inline int start_on(struct lbl_tracker *tracker, struct lbl_stream *const *streams, size_t n,
			   const char *name)
{
	const struct lbl_proxy proxy = { .name = name,
					 .name_bytes = strlen(name),
					 .stream = LBL_ALL_STREAMS };

	return lbl_tracker_start(tracker, streams, n, NULL, &proxy, 1);
}

static inline struct lbl_event closed_event(uint64_t lifetime, uint8_t backend)
{
	struct lbl_event event = { .type = LBL_CLOSED,
				   .reason = LBL_REASON_FIN,
				   .protocol = 6,
				   .flags = LBL_FLAG_IPV4,
				   .backend_id = backend,
				   .timestamp_ns = SECOND + lifetime,
				   .created_ns = SECOND,
				   .port = 80 };

	memset(event.addr + 10, 0xff, 2);
	event.addr[12] = 10;
	event.addr[15] = backend;
	return event;
}

static inline uint64_t kinds(const struct lbl_outcomes *outcomes)
{
	return outcomes->opened + outcomes->closed + outcomes->periodic + outcomes->malformed;
}

static inline bool accounted(const struct lbl_outcomes *outcomes)
{
	return outcomes->closed ==
	       outcomes->recorded + outcomes->unmatched + outcomes->rejected + outcomes->ignored;
}

/* The three identities of a tracker. */
static inline bool all_accounted(const struct lbl_tracker_stats *stats)
{
	const struct lbl_stream_stats *events = &stats->events;

	return accounted(&stats->outcomes) && events->received == kinds(&stats->outcomes) &&
	       events->produced ==
		       events->received + events->taken + events->dropped + events->in_ring;
}

#endif
