/* SPDX-License-Identifier: MIT */
/* Per-CPU counters of BPF programs. */
#ifndef LBL_KERNEL_COUNTERS_H
#define LBL_KERNEL_COUNTERS_H

#include <stddef.h>
#include <stdint.h>

/*
 * Sum the only entry of a per-CPU array over all CPUs. The map's value must be exactly `count` u64.
 * Returns 0 or -errno; on failure `sums` is unchanged.
 */
int lbl_counters_sum(int fd, uint64_t *sums, size_t count);

#endif
