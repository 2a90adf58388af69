/* SPDX-License-Identifier: MIT */
/* Add to a counter that has one writer and lock-free readers. */
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
 * Add `v`, and return whether the counter's sign bit is now set: its owner must then carry. On
 * x86-64 this is one instruction, not atomic because there is one writer. ThreadSanitizer cannot
 * see inside assembly, so it gets the portable version.
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
