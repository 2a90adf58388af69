/* SPDX-License-Identifier: MIT */
/* An array that grows in place: its elements never move, so readers may use it while it grows. */
#ifndef LBL_BASE_ARRAY_H
#define LBL_BASE_ARRAY_H

#include <stddef.h>
#include <stdint.h>

struct lbl_array {
	uint8_t *at;
	size_t reserved, usable; /* bytes */
};

/*
 * Reserve address space for `bytes`; none of it is accessible yet. Returns 0, or -ENOMEM if the
 * address space is exhausted.
 */
int lbl_array_reserve(struct lbl_array *array, size_t bytes);
/* Make the first `bytes` accessible; new memory is zero. Returns 0 or -ENOMEM. */
int lbl_array_grow(struct lbl_array *array, size_t bytes);
/* Unmap the array. Legal on a zeroed struct, and twice. */
void lbl_array_release(struct lbl_array *array);

#endif
