/* SPDX-License-Identifier: MIT */
/* Adding to a counter that has one writer and readers without a lock. */
#ifndef LBL_BASE_BUMP_H
#define LBL_BASE_BUMP_H

#include "base/util.h"

#ifdef __has_feature /* clang */
#if __has_feature(thread_sanitizer)
#define LBL_TSAN
#endif
#endif
#ifdef __SANITIZE_THREAD__ /* gcc */
#define LBL_TSAN
#endif

/*
 * Add, and return whether the counter's sign bit is set now: then it is time to carry. On x86-64
 * one instruction, and no atomic one, since there is one writer; but ThreadSanitizer needs to see
 * what happens.
 */
#if defined(__x86_64__) && !defined(LBL_TSAN)
#define LBL_BUMP(bits, suffix)                                                                     \
	static inline bool lbl_bump##bits(uint##bits##_t *p, uint##bits##_t v)                     \
	{                                                                                          \
		bool negative;                                                                     \
                                                                                                   \
		__asm__("add" suffix " %2, %0" : "+m"(*p), "=@ccs"(negative) : "er"(v) : "cc");    \
		return negative;                                                                   \
	}
#else
#define LBL_BUMP(bits, suffix)                                                                     \
	static inline bool lbl_bump##bits(uint##bits##_t *p, uint##bits##_t v)                     \
	{                                                                                          \
		uint##bits##_t sum = (uint##bits##_t)(*p + v);                                     \
                                                                                                   \
		WRITE_ONCE(p, sum);                                                                \
		return sum >> (bits - 1);                                                          \
	}
#endif

LBL_BUMP(8, "b")
LBL_BUMP(32, "l")
LBL_BUMP(64, "q")

#endif
