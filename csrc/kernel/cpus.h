/* SPDX-License-Identifier: MIT */
/*
 * How many values an entry of a per-CPU map has. /sys tells it too, but a container may hide that
 * file or show another one, and the kernel would then write past the end of our buffer.
 */
#ifndef LBL_KERNEL_CPUS_H
#define LBL_KERNEL_CPUS_H

#include <stddef.h>

/*
 * Return an upper bound: a buffer of that many values is large enough for a look-up in a per-CPU
 * map. The kernel writes one value per possible CPU, which are often fewer. Returns -errno if the
 * kernel does not tell.
 */
int lbl_cpus_most(void);

/*
 * Return the exact number, by looking up an entry of a per-CPU map. `value_bytes`, of one CPU, must
 * be a multiple of 8. Returns -errno; -ENOENT if the map lacks the key.
 */
int lbl_cpus_of(int fd, const void *key, size_t value_bytes);

#endif
