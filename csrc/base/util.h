/* SPDX-License-Identifier: MIT */
/* Single-writer loads and stores, reference counts, the clock, file descriptors. */
#ifndef LBL_BASE_UTIL_H
#define LBL_BASE_UTIL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

__extension__ typedef unsigned __int128 lbl_u128;

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* One writer, lock-free readers: relaxed, never torn, no ordering implied. */
#define READ_ONCE(p) __atomic_load_n(p, __ATOMIC_RELAXED)
#define WRITE_ONCE(p, v) __atomic_store_n(p, v, __ATOMIC_RELAXED)
#define lbl_owner_add(p, v) WRITE_ONCE(p, *(p) + (v))

/* Reference counts: lbl_unref() returns true to the last user, which frees the object. */
static inline void lbl_ref(int *refs)
{
	__atomic_add_fetch(refs, 1, __ATOMIC_RELAXED);
}

static inline bool lbl_unref(int *refs)
{
	return !__atomic_sub_fetch(refs, 1, __ATOMIC_ACQ_REL);
}

/* Return the time of the kernel's monotonic clock, which events carry too. */
static inline uint64_t lbl_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Return the calling thread's CPU time. */
static inline uint64_t lbl_cpu_ns(void)
{
	struct timespec at;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
	return (uint64_t)at.tv_sec * 1000000000 + (uint64_t)at.tv_nsec;
}

/* Return the time of the day, which other machines understand, too. */
static inline uint64_t lbl_unix_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Legal on a negative number, which is no fd. */
static inline void lbl_close(int fd)
{
	if (fd >= 0)
		close(fd);
}

/* Hash two words into one. */
static inline uint64_t lbl_mix(uint64_t a, uint64_t b)
{
	lbl_u128 product = (lbl_u128)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

#endif
