// SPDX-License-Identifier: MIT
/* Claims in a page of memory that processes share, as they share a ring's consumer page. */
#include <signal.h>
#include <sys/wait.h>

#include "common.h"

static int shared = -1;
static size_t page_bytes;
static uint8_t *page; /* shared; the one before it is private */

static uint8_t *map_page(void)
{
	uint8_t *both = mmap(NULL, 2 * page_bytes, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *behind;

	REQUIRE(both != MAP_FAILED);
	behind = mmap(both + page_bytes, page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		      shared, 0);
	REQUIRE(behind != MAP_FAILED);
	return both + page_bytes;
}

static void unmap_page(uint8_t *mapped)
{
	munmap(mapped - page_bytes, 2 * page_bytes);
}

static void set_up(void)
{
	page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	shared = memfd_create("page", MFD_CLOEXEC);
	REQUIRE(shared >= 0 && !ftruncate(shared, (off_t)page_bytes));
	page = map_page();
}

static void tear_down(void)
{
	unmap_page(page);
	close(shared);
}

/* Where the claim is. */
static uint32_t *word(void)
{
	return (uint32_t *)(void *)(page + 1024);
}

/* A thread that takes the claim, and drops it or ends with it. */
struct claimer {
	struct lbl_claims claims;
	struct lbl_holder holder;
	bool drops;
	int err;
};

static void *claim(void *arg)
{
	struct claimer *claimer = arg;

	claimer->err = lbl_claims_begin(&claimer->claims);
	if (!claimer->err)
		claimer->err = lbl_claim_take(&claimer->claims, page, &claimer->holder);
	if (!claimer->err && claimer->drops)
		lbl_claim_drop(&claimer->claims, page);
	return NULL;
}

static int claim_in_thread(struct claimer *claimer)
{
	pthread_t thread;

	REQUIRE(!pthread_create(&thread, NULL, claim, claimer));
	pthread_join(thread, NULL);
	return claimer->err;
}

static void test_a_claim_is_dropped_or_ends_with_its_thread(void)
{
	struct claimer claimer = { 0 };
	int i;

	set_up();
	for (i = 0; i < 6; i++) {
		claimer.drops = i % 2;
		CHECK(!claim_in_thread(&claimer));
		CHECK(*word() == (claimer.drops ? 0 : FUTEX_OWNER_DIED));
	}
	tear_down();
}

/* Claim in a child, and keep it until it is killed. */
static pid_t hold(void)
{
	int ready[2];
	pid_t pid;
	char byte;

	REQUIRE(!pipe(ready));
	fflush(stdout);
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid) {
		static struct claimer claimer;

		claim(&claimer);
		if (claimer.err || write(ready[1], "x", 1) != 1)
			_exit(1);
		while (true)
			pause();
	}
	REQUIRE(read(ready[0], &byte, 1) == 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static void test_a_killed_holder_frees_it(void)
{
	struct claimer claimer = { .drops = true };
	int i;

	set_up();
	for (i = 0; i < 20; i++) {
		pid_t pid = hold();

		CHECK(claim_in_thread(&claimer) == -EBUSY);
		CHECK(claimer.holder.pid == (uint32_t)pid && claimer.holder.is_near);
		REQUIRE(!kill(pid, SIGKILL) && waitpid(pid, NULL, 0) == pid);
		CHECK(!claim_in_thread(&claimer));
	}
	tear_down();
}

/* A child inherits the memory, but not the thread that holds the claim. */
static void test_a_child_neither_has_nor_frees_it(void)
{
	static struct claimer claimer;
	struct claimer second = { 0 };
	pid_t pid;

	set_up();
	claim(&claimer);
	REQUIRE(!claimer.err);
	fflush(stdout);
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid)
		_exit(0);
	REQUIRE(waitpid(pid, NULL, 0) == pid);
	CHECK(claim_in_thread(&second) == -EBUSY && second.holder.pid == (uint32_t)getpid());
	lbl_claim_drop(&claimer.claims, page);
	CHECK(!claim_in_thread(&second));
	tear_down();
}

/* Whatever others write there while it is held: the list goes through private memory. */
static void test_a_hostile_page(void)
{
	struct claimer claimer = { 0 }, other = { 0 };
	uint32_t i;

	set_up();
	memset(page, 0xff, page_bytes);
	CHECK(claim_in_thread(&claimer) == -EBUSY && !claimer.holder.is_near);
	memset(page, 0, page_bytes);
	claim(&claimer);
	REQUIRE(!claimer.err);
	for (i = 0; i < page_bytes; i += 4)
		*(uint32_t *)(void *)(page + i) = 0xfffffff8;
	lbl_claim_drop(&claimer.claims, page);
	CHECK(*word() == 0xfffffff8); /* theirs, as they say */
	*word() = FUTEX_WAITERS;
	CHECK(!claim_in_thread(&other));
	tear_down();
}

/* Who waits for a futex sets a flag in its word. The claim is ours as before, and goes as a whole. */
static void test_flags_beside_our_number_go_with_it(void)
{
	static const uint32_t flags[] = { FUTEX_WAITERS, FUTEX_OWNER_DIED,
					  FUTEX_WAITERS | FUTEX_OWNER_DIED };
	struct claimer claimer = { 0 }, other = { .drops = true };
	size_t i;

	set_up();
	for (i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		claim(&claimer);
		REQUIRE(!claimer.err && *word() == (uint32_t)gettid());
		*word() |= flags[i];
		CHECK(claim_in_thread(&other) == -EBUSY);
		lbl_claim_drop(&claimer.claims, page);
		CHECK(!*word());
		CHECK(!claim_in_thread(&other) && !*word());
	}
	tear_down();
}

enum { RACERS = 4, ROUNDS = 2000 };

static uint64_t inside, most_inside;

static void *race(void *arg)
{
	struct lbl_claims claims;
	struct lbl_holder holder;
	uint8_t *own = map_page();
	uint64_t taken = 0;
	int i;

	REQUIRE(!lbl_claims_begin(&claims));
	for (i = 0; i < ROUNDS; i++) {
		if (lbl_claim_take(&claims, own, &holder))
			continue;
		if (__atomic_add_fetch(&inside, 1, __ATOMIC_RELAXED) > 1)
			__atomic_store_n(&most_inside, 2, __ATOMIC_RELAXED);
		__atomic_sub_fetch(&inside, 1, __ATOMIC_RELAXED);
		lbl_claim_drop(&claims, own);
		taken++;
	}
	*(uint64_t *)arg = taken;
	unmap_page(own);
	return NULL;
}

static void test_one_of_many_has_it(void)
{
	pthread_t threads[RACERS];
	uint64_t taken[RACERS];
	int i;

	set_up();
	for (i = 0; i < RACERS; i++)
		REQUIRE(!pthread_create(&threads[i], NULL, race, &taken[i]));
	for (i = 0; i < RACERS; i++)
		pthread_join(threads[i], NULL);
	CHECK(!most_inside && taken[0] + taken[1] + taken[2] + taken[3] && !*word());
	tear_down();
}

int main(void)
{
	RUN(test_a_claim_is_dropped_or_ends_with_its_thread);
	RUN(test_a_killed_holder_frees_it);
	RUN(test_a_child_neither_has_nor_frees_it);
	RUN(test_a_hostile_page);
	RUN(test_flags_beside_our_number_go_with_it);
	RUN(test_one_of_many_has_it);
	return checks_done();
}
