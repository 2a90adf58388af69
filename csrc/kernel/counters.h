/* SPDX-License-Identifier: MIT */
/* Counters that BPF programs keep per CPU. */
#ifndef LBL_KERNEL_COUNTERS_H
#define LBL_KERNEL_COUNTERS_H

#include <stddef.h>
#include <stdint.h>

/*
 * Add up, over all CPUs, the `count` u64 that the only entry of a per-CPU array holds. The map's
 * value must have just that size. Leaves `sums` alone if it fails.
 */
int lbl_counters_sum(int fd, uint64_t *sums, size_t count);

#endif
