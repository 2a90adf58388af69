/* SPDX-License-Identifier: MIT */
/* Find BPF maps by path, id or name. All lookups return an fd that the caller closes, or -errno. */
#ifndef LBL_KERNEL_MAPS_H
#define LBL_KERNEL_MAPS_H

#include <stdbool.h>
#include <stdint.h>

/* cdef: begin */
/* Return 1 if the path is in a BPF file system, a bpffs, 0 if not, or -errno. */
int lbl_is_bpffs(const char *path);
/* Open a pinned map. -EINVAL if the path is not in a bpffs. */
int lbl_map_by_path(const char *path);
int lbl_map_by_id(uint32_t id);
/*
 * Find a map by its name, of which the kernel keeps 15 bytes. -ENOENT if no map has it, -ENOTUNIQ
 * if several maps have it.
 */
int lbl_map_by_name(const char *name);
/*
 * Open the map at `index` of an array of maps. -ENOENT if the entry is empty, -ERANGE if the index
 * is out of range, -EINVAL if the map is not an array of maps.
 */
int lbl_map_inner(int fd, uint32_t index);
/* Return whether the map has this name; false on errors. */
bool lbl_map_is_called(int fd, const char *name);
/* Return the map's id, or -errno. */
int64_t lbl_map_id(int fd);
/*
 * Find the map lbl_counters of a ring, or of an array of rings: beside its pin `path`, which may be
 * NULL, then among the maps of the programs that use it. lbl_counters counts for maps called
 * lbl_events only, so others have none: -ENOENT.
 */
int lbl_counters_find(const char *path, int ring_fd);
/* cdef: end */

struct bpf_map_info;

/* Returns 0 or -errno. */
int lbl_map_info(int fd, struct bpf_map_info *ret);

#endif
