// SPDX-License-Identifier: MIT
/* fork() takes every lock in the order of ranks, and releases it in parent and child. */
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

/* The front of struct lbl_intern, which base/intern.c keeps private. */
struct intern_front {
	struct lbl_fork_entry fork;
	pthread_mutex_t lock;
};

/* The front of struct lbl_ledger, which stream/ledger.c keeps private. */
struct ledger_front {
	struct lbl_fork_entry fork;
	pthread_mutex_t lock;
};

static struct lbl_stream *stream;
static struct lbl_tracker *tracker;
static struct lbl_queue *queue;
static pthread_mutex_t *locks[16]; /* by rank */
static uint32_t n_locks, n_of_rank[LBL_FORK_INTERN + 1];

static void set_up(void)
{
	tracker = make_tracker(10, false);
	REQUIRE(!lbl_stream_memory(4096, &stream));
	REQUIRE(!lbl_queue_new(10, &queue));
	REQUIRE(!lbl_queue_subscribe(queue, stream));
	REQUIRE(!start_on(tracker, &stream, 1, "web"));
	n_locks = 0;
	locks[n_locks++] = &tracker->lock;
	n_of_rank[LBL_FORK_TRACKER] = 1;
	locks[n_locks++] = &((struct ledger_front *)tracker->ledger)->lock;
	n_of_rank[LBL_FORK_LEDGER] = 1;
	locks[n_locks++] = &stream->control;
	locks[n_locks++] = &stream->producing;
	locks[n_locks++] = &stream->lock;
	n_of_rank[LBL_FORK_STREAM] = 3;
	locks[n_locks++] = &tracker->own->sink.lock;
	locks[n_locks++] = &tracker->attached[0].shard->sink.lock;
	locks[n_locks++] = &((struct lbl_sink *)queue)->lock;
	n_of_rank[LBL_FORK_SINK] = 3;
	locks[n_locks++] = &((struct intern_front *)tracker->names)->lock;
	n_of_rank[LBL_FORK_INTERN] = 1;
}

static void tear_down(void)
{
	lbl_tracker_free(tracker);
	lbl_queue_free(queue);
	lbl_stream_free(stream);
}

static bool is_held(pthread_mutex_t *lock)
{
	if (pthread_mutex_trylock(lock))
		return true;
	pthread_mutex_unlock(lock);
	return false;
}

/* Handlers of this rank and lower ones have run; the others have not. */
static void check_locks(struct lbl_fork_entry *entry, enum lbl_fork_phase phase)
{
	uint32_t turned = 0, i;

	for (i = 0; i <= entry->rank; i++)
		turned += n_of_rank[i];
	for (i = 0; i < n_locks; i++)
		CHECK(is_held(locks[i]) == ((i < turned) == (phase == LBL_FORK_PREPARE)));
}

/* Report the child's failed checks in the parent, too. */
static void fork_and_check(void)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid) {
		fflush(stdout);
		_exit(checks_failed != 0);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && !WEXITSTATUS(status));
}

static void test_every_lock_is_held_over_a_fork(void)
{
	struct lbl_fork_entry last[LBL_FORK_INTERN + 1]; /* of each rank */
	uint32_t i;

	set_up();
	lbl_stream_stop(stream); /* so that no other thread takes them */
	for (i = 0; i <= LBL_FORK_INTERN; i++) {
		last[i] = (struct lbl_fork_entry){ .rank = i, .handle = check_locks };
		lbl_fork_register(&last[i]);
	}
	fork_and_check();
	for (i = 0; i <= LBL_FORK_INTERN; i++)
		lbl_fork_unregister(&last[i]);
	tear_down();
}

static uint32_t forked;

static void note_fork(struct lbl_sink *sink)
{
	(void)sink;
	forked++;
}

/* Only the child calls the sinks' `forked` operation. */
static void test_sinks_are_told_in_the_child(void)
{
	static const struct lbl_sink_ops ops = { .forked = note_fork };
	struct lbl_sink sink;
	int status;
	pid_t pid;

	lbl_sink_init(&sink, &ops);
	fflush(stdout);
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid)
		_exit(forked != 1);
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && !WEXITSTATUS(status) && !forked);
	lbl_sink_destroy(&sink);
}

/* ---- the list ---- */

struct listed {
	struct lbl_fork_entry entry;
	uint64_t number;
};

static uint64_t called[32];
static uint32_t n_called;

static void note_call(struct lbl_fork_entry *entry, enum lbl_fork_phase phase)
{
	if (phase != LBL_FORK_CHILD)
		called[n_called++] = ((struct listed *)entry)->number;
}

static void test_lower_ranks_come_first(void)
{
	static const enum lbl_fork_rank ranks[] = { LBL_FORK_SINK,    LBL_FORK_INTERN,
						    LBL_FORK_TRACKER, LBL_FORK_SINK,
						    LBL_FORK_STREAM,  LBL_FORK_TRACKER };
	static const uint64_t order[] = { 2, 5, 4, 0, 3, 1 };
	struct listed listed[6];
	uint64_t serial = 0;
	uint32_t i;

	for (i = 0; i < 6; i++) {
		uint64_t next;

		listed[i] = (struct listed){ { .rank = ranks[i], .handle = note_call }, i };
		next = lbl_fork_register(&listed[i].entry);
		CHECK(!i || next > serial);
		serial = next;
	}
	n_called = 0;
	fork_and_check();
	REQUIRE(n_called == 12);
	for (i = 0; i < 12; i++)
		CHECK(called[i] == order[i % 6]);
	for (i = 0; i < 6; i++) {
		lbl_fork_unregister(&listed[i].entry);
		lbl_fork_unregister(&listed[i].entry); /* no effect */
		n_called = 0;
		fork_and_check();
		CHECK(n_called == 2 * (5 - i));
	}
}

/* ---- the child ---- */

static int queue_fd; /* which parent and child signal each for itself */

static bool is_readable(int fd)
{
	struct pollfd wanted = { .fd = fd, .events = POLLIN };

	return poll(&wanted, 1, 0) == 1;
}

static uint64_t connections(int (*read)(struct lbl_tracker *, enum lbl_metric,
					struct lbl_snapshot **))
{
	struct lbl_snapshot *snapshot;
	uint64_t sum = 0;
	size_t i;

	REQUIRE(!read(tracker, LBL_LIFETIME, &snapshot));
	for (i = 0; i < snapshot->n_rows; i++)
		sum += snapshot->rows[i].count;
	lbl_snapshot_free(snapshot);
	return sum;
}

/* The child can read what the parent's stream had fed, but does not export it. */
static void check_copy(void)
{
	struct lbl_tracker_stats stats;

	CHECK(!lbl_tracker_stats(tracker, &stats) && stats.is_copy && !stats.running);
	CHECK(connections(lbl_tracker_snapshot) == 1);
	CHECK(connections(lbl_tracker_snapshot_own) == 0);
}

static void check_parent(void)
{
	struct lbl_tracker_stats stats;

	CHECK(!lbl_tracker_stats(tracker, &stats) && !stats.is_copy && stats.running);
	CHECK(connections(lbl_tracker_snapshot) == 1);
	CHECK(connections(lbl_tracker_snapshot_own) == 1);
}

static void check_child(void)
{
	struct lbl_event event = closed_event(SECOND, 1);
	struct lbl_drain_counts unused;
	struct lbl_decoded_event popped;
	struct lbl_stream_stats stats;

	stats = read_streams(&stream, 1);
	CHECK(stats.counted && !stats.in_ring);
	CHECK(stats.produced == 2 && stats.received == 1 && stats.dropped == 1);
	CHECK(stats.size_bytes == 4096 && !stats.fill_bytes);
	CHECK(!lbl_stream_alive(stream) && !stream->running && !lbl_stream_attached(stream));
	CHECK(lbl_stream_drain(stream) == -ECHILD);
	CHECK(lbl_stream_produce(stream, &event, sizeof(event)) == -ECHILD);
	CHECK(lbl_stream_attach(stream, &tracker->own->sink, &unused) == -ECHILD);
	CHECK(is_readable(queue_fd));
	CHECK(lbl_queue_pop(queue, 0, 1, &popped) == 1 && popped.event.port == 80);
	CHECK(lbl_queue_pop(queue, 0, 1, &popped) == 0);
	CHECK(!is_readable(queue_fd));
	lbl_queue_close(queue);
	CHECK(is_readable(queue_fd));
	CHECK(lbl_tracker_name(tracker, "new", 3) > 0);
	check_copy();
	lbl_tracker_stop(tracker); /* nothing to stop: it stays a copy */
	check_copy();
	tear_down();
	fflush(stdout);
	_exit(checks_failed != 0);
}

static void *pop(void *arg)
{
	struct lbl_decoded_event popped[2];

	return (void *)(intptr_t)lbl_queue_pop(arg, -1, 2, popped);
}

/* The child keeps the counts and cannot touch the ring; the parent continues. */
static void test_a_child_is_on_its_own(void)
{
	struct lbl_event event = closed_event(SECOND, 1);
	void *popped;
	pthread_t waiter;
	int status;
	pid_t pid;

	set_up();
	queue_fd = lbl_queue_fd(queue);
	REQUIRE(!lbl_stream_produce(stream, &event, sizeof(event)));
	CHECK(lbl_stream_drain(stream) >= 0);
	stream->produced.produced++; /* as if one event did not fit into the ring */
	stream->produced.dropped++;
	fflush(stdout);
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid)
		check_child();
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && !WEXITSTATUS(status));
	CHECK(lbl_stream_alive(stream) && stream->running);
	check_parent();
	CHECK(is_readable(queue_fd));
	REQUIRE(!pthread_create(&waiter, NULL, pop, queue));
	pthread_join(waiter, &popped);
	CHECK((intptr_t)popped == 1 && !is_readable(queue_fd));
	tear_down();
}

int main(void)
{
	RUN(test_every_lock_is_held_over_a_fork);
	RUN(test_sinks_are_told_in_the_child);
	RUN(test_lower_ranks_come_first);
	RUN(test_a_child_is_on_its_own);
	return checks_done();
}
