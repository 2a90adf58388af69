/* SPDX-License-Identifier: MIT */
/*
 * The right to be a ring's only consumer. It is kept in the ring's consumer page, of which the kernel
 * uses the first 8 bytes: so it goes with the map, through all namespaces, and exactly those can take
 * it who can consume. It belongs to a thread; when that ends, however it ends, the kernel frees it.
 */
#ifndef LBL_STREAM_CLAIM_H
#define LBL_STREAM_CLAIM_H

#include <linux/futex.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* cdef: begin */
/* Who has claimed a ring, by its own account. */
struct lbl_holder {
	uint32_t pid; /* 0 = unknown */
	bool is_near; /* `pid` is a number of the caller's pid namespace */
};
/* cdef: end */

/*
 * The claims of a thread. It is registered with the kernel, so it must stay where it is until the
 * thread has ended.
 */
struct lbl_claims {
	struct robust_list_head head;
};

/* Make the calling thread able to claim. Robust pthread mutexes are lost to it. Returns 0 or -errno. */
int lbl_claims_begin(struct lbl_claims *claims);

/*
 * Claim the ring of this consumer page for the calling thread. The page before it is private memory
 * that no other claim uses, since the kernel's list of claims goes through it: so nobody can lead us
 * or the kernel astray. -EBUSY if a thread that lives has claimed it: `holder` says which.
 */
int lbl_claim_take(struct lbl_claims *claims, void *page, struct lbl_holder *holder);

/* Give a claim back, in the thread that took it. */
void lbl_claim_drop(struct lbl_claims *claims, void *page);

#endif
