/* SPDX-License-Identifier: MIT */
/* The calling thread's network namespace. */
#ifndef LBL_KERNEL_NETNS_H
#define LBL_KERNEL_NETNS_H

/* An fd, to be closed, of the namespace that the thread is in. */
int lbl_netns_current(void);

/*
 * Take the thread into the namespace open as `netns`; -1 leaves it where it is. Returns a
 * descriptor of the one it came from, for lbl_netns_leave(), or -errno.
 */
int lbl_netns_enter(int netns);

/* Go back. If that fails, the process is aborted: it must not go on in another namespace. */
void lbl_netns_leave(int home);

#endif
