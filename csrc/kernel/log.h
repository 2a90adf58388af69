/* SPDX-License-Identifier: MIT */
/* Keep the messages that libbpf logs during a call, for the error message. */
#ifndef LBL_KERNEL_LOG_H
#define LBL_KERNEL_LOG_H

#include <stdbool.h>

/* cdef: begin */
/* Return libbpf's version as 1000 * major + minor. */
int lbl_libbpf_version(void);

/*
 * Return the messages of libbpf and the kernel during this thread's last call that used libbpf;
 * never NULL. The text is valid until the thread's next such call.
 */
const char *lbl_log_text(void);
/* cdef: end */

/*
 * Keep libbpf's messages of this thread until the end of the block, and drop the earlier ones.
 * Outside such blocks, messages go to the previous print function.
 */
#define lbl_log_block()                                                                            \
	__attribute__((cleanup(lbl_log_end), unused)) bool lbl_log_block_outer = lbl_log_begin()

bool lbl_log_begin(void);
void lbl_log_end(const bool *outer);

#endif
