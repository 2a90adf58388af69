/* SPDX-License-Identifier: MIT */
/* Pin the maps of a loaded object under their names. */
#ifndef LBL_KERNEL_PINS_H
#define LBL_KERNEL_PINS_H

#include <stddef.h>

struct bpf_map;

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
