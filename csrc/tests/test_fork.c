// SPDX-License-Identifier: MIT
/* fork() takes every lock, of lower ranks first, and gives it back on both sides. */
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

/* The front of struct lbl_intern, which base/intern.c keeps to itself. */
struct intern_front {
	struct lbl_fork_entry fork;
	pthread_mutex_t lock;
};

static struct lbl_stream *stream;
static struct lbl_tracker *tracker;
static struct lbl_queue *queue;
static pthread_mutex_t *locks[16];
static uint32_t n_locks;

static void set_up(void)
{
	tracker = make_tracker(10, false);
	REQUIRE(!lbl_stream_memory(4096, &stream));
	REQUIRE(!lbl_queue_new(10, &queue));
	REQUIRE(!lbl_queue_subscribe(queue, stream));
	REQUIRE(!start_on(tracker, &stream, 1, "web"));
	n_locks = 0;
	locks[n_locks++] = &tracker->lock;
	locks[n_locks++] = &stream->control;
	locks[n_locks++] = &stream->producing;
	locks[n_locks++] = &stream->lock;
	locks[n_locks++] = &tracker->own->sink.lock;
	locks[n_locks++] = &tracker->attached[0].shard->sink.lock;
	locks[n_locks++] = &((struct lbl_sink *)queue)->lock;
	locks[n_locks++] = &((struct intern_front *)tracker->names)->lock;
}

static void tear_down(void)
{
	lbl_tracker_free(tracker);
	lbl_queue_free(queue);
	lbl_stream_free(stream);
}

/* The number of locks that somebody holds. */
static uint32_t held(void)
{
	uint32_t n = 0, i;

	for (i = 0; i < n_locks; i++) {
		if (pthread_mutex_trylock(locks[i]))
			n++;
		else
			pthread_mutex_unlock(locks[i]);
	}
	return n;
}

static void check_locks(struct lbl_fork_entry *entry, enum lbl_fork_phase phase)
{
	(void)entry;
	if (phase == LBL_FORK_PREPARE)
		CHECK(held() == n_locks);
	else
		CHECK(held() == 0);
}

/* The child's checks are the parent's, too. */
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
	/* The last of the last rank, so that its turn is when all others have had theirs. */
	struct lbl_fork_entry last = { .rank = LBL_FORK_INTERN, .handle = check_locks };

	set_up();
	lbl_stream_stop(stream); /* so that nobody else takes them */
	lbl_fork_register(&last);
	fork_and_check();
	lbl_fork_unregister(&last);
	tear_down();
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
		lbl_fork_unregister(&listed[i].entry); /* of no effect */
		n_called = 0;
		fork_and_check();
		CHECK(n_called == 2 * (5 - i));
	}
}

/* ---- the child ---- */

static void check_child(void)
{
	struct lbl_event event = closed_event(SECOND, 1);
	struct lbl_drain_counts unused;
	struct lbl_decoded_event popped;

	CHECK(!lbl_stream_alive(stream) && !stream->running && stream->claim_fd == -1);
	CHECK(lbl_stream_drain(stream) == -ECHILD);
	CHECK(lbl_stream_produce(stream, &event, sizeof(event)) == -ECHILD);
	CHECK(lbl_stream_attach(stream, &tracker->own->sink, &unused) == -ECHILD);
	CHECK(lbl_queue_pop(queue, 0, 1, &popped) == 1 && popped.event.port == 80);
	CHECK(lbl_queue_pop(queue, 0, 1, &popped) == 0);
	CHECK(lbl_tracker_name(tracker, "new", 3) > 0);
	tear_down();
	fflush(stdout);
	_exit(checks_failed != 0);
}

static void *pop(void *arg)
{
	struct lbl_decoded_event popped[2];

	return (void *)(intptr_t)lbl_queue_pop(arg, -1, 2, popped);
}

/* It has what was counted, and cannot touch the ring; the parent goes on. */
static void test_a_child_is_on_its_own(void)
{
	struct lbl_event event = closed_event(SECOND, 1);
	void *popped;
	pthread_t waiter;
	int status;
	pid_t pid;

	set_up();
	REQUIRE(!lbl_stream_produce(stream, &event, sizeof(event)));
	CHECK(lbl_stream_drain(stream) >= 0);
	fflush(stdout);
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid)
		check_child();
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && !WEXITSTATUS(status));
	CHECK(lbl_stream_alive(stream) && stream->running);
	REQUIRE(!pthread_create(&waiter, NULL, pop, queue));
	pthread_join(waiter, &popped);
	CHECK((intptr_t)popped == 1);
	tear_down();
}

int main(void)
{
	RUN(test_every_lock_is_held_over_a_fork);
	RUN(test_lower_ranks_come_first);
	RUN(test_a_child_is_on_its_own);
	return checks_done();
}
