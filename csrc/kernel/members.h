/* SPDX-License-Identifier: MIT */
/* The sizes of a map's keys and values, and what its type information (BTF) says is in them. */
#ifndef LBL_KERNEL_MEMBERS_H
#define LBL_KERNEL_MEMBERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* cdef: begin */
enum { LBL_MEMBER_NAME = 128 };

/* A member of the key's or the value's struct, also one of a struct or a union within it. */
struct lbl_member {
	char name[LBL_MEMBER_NAME]; /* of a nested one "outer.inner"; cut off if it is longer */
	uint32_t offset, bytes;
	bool in_value; /* else in the key */
	bool big_endian; /* its type is called __be16 or the like */
};

struct lbl_map_sizes {
	uint32_t key_bytes, value_bytes, max_entries;
};

/* Returns 0 or -errno. */
int lbl_map_sizes(int fd, struct lbl_map_sizes *ret);
/*
 * List up to `n` members of a map's keys and values. Bit fields are left out. Returns the number; 0
 * if the map has no type information, or -errno.
 */
int lbl_map_members(int fd, struct lbl_member *ret, size_t n);
/* cdef: end */

#endif
