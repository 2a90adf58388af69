/* SPDX-License-Identifier: MIT */
/* The network namespace of the calling thread. */
#ifndef LBL_KERNEL_NETNS_H
#define LBL_KERNEL_NETNS_H

#include <stdint.h>

/* cdef: begin */
/* Set `ret` to a number that no other namespace has until the next boot. Returns 0 or -errno. */
int lbl_netns_cookie(uint64_t *ret);
/* cdef: end */

/* Return an fd of the thread's namespace, which the caller closes, or -errno. */
int lbl_netns_current(void);

/*
 * Move the thread into the namespace of fd `netns`; -1 keeps the current one. Returns an fd of the
 * previous namespace, which lbl_netns_leave() closes, or -errno.
 */
int lbl_netns_enter(int netns);

/*
 * Return to the previous namespace. Aborts the process on failure: running on in the wrong
 * namespace would be worse.
 */
void lbl_netns_leave(int home);

#endif
