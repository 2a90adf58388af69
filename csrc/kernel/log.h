/* SPDX-License-Identifier: MIT */
/* libbpf itself. */
#ifndef LBL_KERNEL_LOG_H
#define LBL_KERNEL_LOG_H

/* cdef: begin */
/* libbpf's version as 1000 * major + minor. */
int lbl_libbpf_version(void);
/* cdef: end */

#endif
