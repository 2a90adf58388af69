/* SPDX-License-Identifier: MIT */
/* Pin the maps of a loaded object under their names, and anything else by its fd. */
#ifndef LBL_KERNEL_PINS_H
#define LBL_KERNEL_PINS_H

#include <stddef.h>

/* cdef: begin */
/*
 * The version of all that outlives a process in pins: maps, and what programs keep in them. Whoever
 * changes the layout of a map, or what a program stores in it, adds 1.
 */
enum { LBL_PIN_LAYOUT = 2 };

/* Pin a map, program or link. -EEXIST if the path is taken, -EINVAL if it is not in a bpffs. */
int lbl_pin(int fd, const char *path);

/* Return an fd of what is pinned there, which the caller closes, or -errno. */
int lbl_pinned(const char *path);
/* cdef: end */

struct bpf_map;

/* Set `ret` to a duplicate of what is to be pinned, or was, which the caller closes; 0 or -errno. */
int lbl_dup(int fd, int *ret);

/*
 * Pin all maps in `directory` of a mounted bpffs, created if missing; on failure none is pinned.
 * -EBUSY if we have already pinned one, -EEXIST if a name is taken, -EINVAL if the directory is not
 * in a bpffs.
 */
int lbl_pins_add(struct bpf_map *const *maps, size_t n, const char *directory);

/*
 * Remove the maps' pins and keep the directory. All are tried; returns the first error. A map
 * without a pin, or whose pin is already deleted, is not an error.
 */
int lbl_pins_remove(struct bpf_map *const *maps, size_t n);

#endif
