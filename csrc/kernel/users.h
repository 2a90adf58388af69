/* SPDX-License-Identifier: MIT */
/* Which maps have a name, and which programs use them, for people who must choose one. */
#ifndef LBL_KERNEL_USERS_H
#define LBL_KERNEL_USERS_H

#include <stddef.h>

/* cdef: begin */
/*
 * Write the maps of this name into `ret`, as "7 (ringbuf, used by from_xdp 3), 9 (...)": a map's id,
 * its type, and the names and ids of the programs. What does not fit into `size` bytes is left out.
 * Returns how many maps there are, or -errno.
 */
int lbl_maps_called(const char *name, char *ret, size_t size);
/* cdef: end */

#endif
