// SPDX-License-Identifier: MIT
/*
 * The kernel's robust futexes, without any waiting: at the end of a thread the kernel walks the list
 * that the thread has registered, and clears each futex word on it that has the thread's number. See
 * Documentation/locking/robust-futex-ABI.rst.
 */
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"
#include "stream/claim.h"

/* Far from the consumer position, which producers read for each event. */
enum { CLAIM_OFFSET = 1024 };

/* In the consumer page; others may write anything there. */
struct claim {
	uint32_t owner; /* the futex word: the thread's number, as its own namespace counts */
	uint32_t pid;
	uint64_t pid_namespace; /* 0 = unknown */
};

static struct claim *claim_in(void *page)
{
	return (struct claim *)(void *)((char *)page + CLAIM_OFFSET);
}

/* Its place in the list is a page before the futex word, in private memory. */
static struct robust_list *node_of(const struct lbl_claims *claims, struct claim *claim)
{
	return (struct robust_list *)(void *)((char *)&claim->owner - claims->head.futex_offset);
}

int lbl_claims_begin(struct lbl_claims *claims)
{
	claims->head = (struct robust_list_head){ .list = { &claims->head.list },
						  .futex_offset = sysconf(_SC_PAGESIZE) };
	return syscall(SYS_set_robust_list, &claims->head, sizeof(claims->head)) ? -errno : 0;
}

static uint64_t own_pid_namespace(void)
{
	struct stat at;

	return stat("/proc/self/ns/pid", &at) ? 0 : at.st_ino;
}

static void read_holder(const struct claim *claim, struct lbl_holder *ret)
{
	uint64_t space = READ_ONCE(&claim->pid_namespace);

	ret->pid = READ_ONCE(&claim->pid);
	ret->is_near = space && space == own_pid_namespace();
}

/* The kernel reads the list whenever this thread may be killed, so each step must be written. */
static void write_step(struct robust_list **at, struct robust_list *value)
{
	__atomic_store_n(at, value, __ATOMIC_SEQ_CST);
}

int lbl_claim_take(struct lbl_claims *claims, void *page, struct lbl_holder *holder)
{
	struct claim *claim = claim_in(page);
	struct robust_list *node = node_of(claims, claim);
	uint32_t seen = READ_ONCE(&claim->owner);
	bool is_ours = false;

	/*
	 * Only a word that is free may be announced: a thread of another pid namespace may have our
	 * number. FUTEX_OWNER_DIED stands beside no number.
	 */
	if (!(seen & FUTEX_TID_MASK)) {
		write_step(&claims->head.list_op_pending, node);
		is_ours = __atomic_compare_exchange_n(&claim->owner, &seen, (uint32_t)gettid(),
						      false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
		if (is_ours) {
			write_step(&node->next, claims->head.list.next);
			write_step(&claims->head.list.next, node);
		}
		write_step(&claims->head.list_op_pending, NULL);
	}
	if (!is_ours) {
		read_holder(claim, holder);
		return -EBUSY;
	}
	WRITE_ONCE(&claim->pid_namespace, own_pid_namespace());
	WRITE_ONCE(&claim->pid, (uint32_t)getpid());
	return 0;
}

/*
 * Once the word is 0, somebody else's may stand there, so it is unlinked as soon as that. If others
 * have written another owner there, the claim is theirs.
 */
void lbl_claim_drop(struct lbl_claims *claims, void *page)
{
	struct claim *claim = claim_in(page);
	struct robust_list *node = node_of(claims, claim), **at = &claims->head.list.next;
	uint32_t ours = (uint32_t)gettid(), seen = READ_ONCE(&claim->owner);
	bool dropped = false;

	WRITE_ONCE(&claim->pid, 0);
	/* Others may have set the flags beside our number. */
	while (!dropped && (seen & FUTEX_TID_MASK) == ours)
		dropped = __atomic_compare_exchange_n(&claim->owner, &seen, 0, false,
						      __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	while (*at != node)
		at = &(*at)->next;
	write_step(at, node->next);
}
