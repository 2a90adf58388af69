/* SPDX-License-Identifier: MIT */
/* What libbpf says while it works for us, kept for the error message. */
#ifndef LBL_KERNEL_LOG_H
#define LBL_KERNEL_LOG_H

#include <stdbool.h>

/* cdef: begin */
/* libbpf's version as 1000 * major + minor. */
int lbl_libbpf_version(void);

/* What libbpf and the kernel said in this thread's last call that uses libbpf; never NULL. */
const char *lbl_log_text(void);
/* cdef: end */

/*
 * Keep what libbpf says in this thread until the end of the block, and forget what it said before.
 * Without such a block, it goes where it went without us.
 */
#define lbl_log_block()                                                                            \
	__attribute__((cleanup(lbl_log_end), unused)) bool lbl_log_block_outer = lbl_log_begin()

bool lbl_log_begin(void);
void lbl_log_end(const bool *outer);

#endif
