/* SPDX-License-Identifier: MIT */
/* Find BPF maps by path, id or name. All return fds, which the caller closes. */
#ifndef LBL_KERNEL_MAPS_H
#define LBL_KERNEL_MAPS_H

#include <stdbool.h>
#include <stdint.h>

/* cdef: begin */
/* -EINVAL if the path is not in a bpffs. */
int lbl_map_by_path(const char *path);
int lbl_map_by_id(uint32_t id);
/* -ENOENT if no map has the name, -ENOTUNIQ if several have. The kernel keeps 15 bytes of it. */
int lbl_map_by_name(const char *name);
/*
 * The map in an array of maps at an index. -ENOENT if there is none, -ERANGE past the array's end,
 * -EINVAL if the map is no array of maps.
 */
int lbl_map_inner(int fd, uint32_t index);
bool lbl_map_is_called(int fd, const char *name);
int64_t lbl_map_id(int fd);
/* The map called lbl_counters of a program that uses this ring. -ENOENT if there is none. */
int lbl_counters_of(int ring_fd);
/* cdef: end */

struct bpf_map_info;

int lbl_map_info(int fd, struct bpf_map_info *ret);

#endif
