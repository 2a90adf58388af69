/* SPDX-License-Identifier: MIT */
/* Maps of a loaded object, pinned under their names. */
#ifndef LBL_KERNEL_PINS_H
#define LBL_KERNEL_PINS_H

#include <stddef.h>

struct bpf_map;

/*
 * Pin maps in `directory`, made if missing, of a mounted BPF file system. All or none. -EBUSY if
 * they are pinned by us already, -EEXIST if the names are taken, -EINVAL for another file system.
 */
int lbl_pins_add(struct bpf_map *const *maps, size_t n, const char *directory);

/*
 * Take the pins of these maps away; the directory stays. Returns the first error, having tried all;
 * a pin that is gone is none, nor is a map that has none.
 */
int lbl_pins_remove(struct bpf_map *const *maps, size_t n);

#endif
