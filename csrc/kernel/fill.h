/* SPDX-License-Identifier: MIT */
/* Make a map hold what user space says, and nothing else. */
#ifndef LBL_KERNEL_FILL_H
#define LBL_KERNEL_FILL_H

#include <stddef.h>

/* Entries in a row of memory, each a key and, further on, a value. */
struct lbl_entries {
	const char *first;
	size_t n, stride, key_bytes, value_at;
};

/*
 * Delete all other entries, then write these. -E2BIG if there is no room for them, -EINVAL for keys
 * of more than 32 bytes; after an error, a part is done.
 */
int lbl_map_fill(int fd, const struct lbl_entries *entries);

/* Likewise with `count` structs that have the members key and value. */
#define LBL_MAP_FILL(fd, of, count)                                                                \
	lbl_map_fill(fd, &(struct lbl_entries){ (const char *)(of), count, sizeof(*(of)),          \
						sizeof((of)->key),                                 \
						offsetof(__typeof__(*(of)), value) })

#endif
