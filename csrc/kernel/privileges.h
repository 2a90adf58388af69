/* SPDX-License-Identifier: MIT */
/* Give up what a process does not need any more. */
#ifndef LBL_KERNEL_PRIVILEGES_H
#define LBL_KERNEL_PRIVILEGES_H

#include <stdint.h>

/* cdef: begin */
/*
 * Give up all capabilities but those whose bits (1 << CAP_...) are in `keep`, in all threads; the
 * programs that the process runs get no others either, whoever its user is. It is for a process
 * that is ours alone: it sends its threads SIGRTMAX, which nobody else may use meanwhile. One call
 * at a time. Returns 0, -ETIMEDOUT if a thread blocks that signal for a second, or -errno; then
 * some threads have given up and some have not.
 */
int lbl_privileges_keep(uint64_t keep);
/* cdef: end */

#endif
