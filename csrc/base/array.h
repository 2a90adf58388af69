/* SPDX-License-Identifier: MIT */
/*
 * An array that grows in place: its elements do not move while it grows, so readers may use it
 * meanwhile. They move only if it reserves more.
 */
#ifndef LBL_BASE_ARRAY_H
#define LBL_BASE_ARRAY_H

#include <stddef.h>
#include <stdint.h>

struct lbl_array {
	uint8_t *at;
	size_t reserved, usable; /* bytes */
};

/*
 * Reserve address space for at least `bytes`; none of what is new is accessible yet. An array that
 * has less moves there with its contents: the caller excludes its users. Returns 0, or -ENOMEM if
 * the address space or memory is exhausted; the array is then as it was.
 */
int lbl_array_reserve(struct lbl_array *array, size_t bytes);
/* Make the first `bytes` accessible; new memory is zero. Returns 0 or -ENOMEM. */
int lbl_array_grow(struct lbl_array *array, size_t bytes);
/* Unmap the array. Legal on a zeroed struct, and twice. */
void lbl_array_release(struct lbl_array *array);

#endif
