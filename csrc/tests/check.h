/* SPDX-License-Identifier: MIT */
/* The C tests' framework: CHECK() counts failures, and RUN() prints one line of TAP per test. */
#ifndef LBL_CHECK_H
#define LBL_CHECK_H

#include <stdio.h>
#include <stdlib.h>

static __attribute__((unused)) int checks_failed, tests_run, tests_failed;

#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			printf("# %s:%d: %s\n", __FILE__, __LINE__, #condition);                   \
			__atomic_add_fetch(&checks_failed, 1, __ATOMIC_RELAXED);                   \
		}                                                                                  \
	} while (0)

/* For conditions without which the test cannot continue. */
#define REQUIRE(condition)                                                                         \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			printf("Bail out! %s:%d: %s\n", __FILE__, __LINE__, #condition);           \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

#define RUN(test)                                                                                  \
	do {                                                                                       \
		checks_failed = 0;                                                                 \
		test();                                                                            \
		tests_run++;                                                                       \
		tests_failed += !!checks_failed;                                                   \
		printf("%sok %d - %s\n", checks_failed ? "not " : "", tests_run, #test);           \
		fflush(stdout);                                                                    \
	} while (0)

static inline int checks_done(void)
{
	printf("1..%d\n", tests_run);
	return tests_failed != 0;
}

#endif
