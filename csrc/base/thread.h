/* SPDX-License-Identifier: MIT */
/* Threads of our own, and conditions that they wait for until a time of lbl_now_ns(). */
#ifndef LBL_BASE_THREAD_H
#define LBL_BASE_THREAD_H

#include <pthread.h>
#include <stdint.h>

/*
 * Start a thread with all signals blocked, since their handlers belong to the program's threads; but
 * for SIGRTMAX, see kernel/privileges.h. Returns 0, or -EAGAIN if no thread can be made.
 */
int lbl_thread_start(pthread_t *thread, void *(*run)(void *arg), void *arg);

void lbl_cond_init(pthread_cond_t *cond);
/* Wait until `until_ns` at the latest. Returns 0, also without a reason, or ETIMEDOUT. */
int lbl_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t until_ns);

#endif
