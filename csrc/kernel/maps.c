// SPDX-License-Identifier: MIT
#include <bpf/bpf.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "kernel/maps.h"
#include "base/util.h"

enum { MAPS_OF_PROGRAM = 64 };

int lbl_map_info(int fd, struct bpf_map_info *info)
{
	uint32_t len = sizeof(*info);

	memset(info, 0, sizeof(*info));
	return bpf_obj_get_info_by_fd(fd, info, &len) ? -errno : 0;
}

int64_t lbl_map_id(int fd)
{
	struct bpf_map_info info;
	int err = lbl_map_info(fd, &info);

	return err ? err : (int64_t)info.id;
}

bool lbl_map_is_called(int fd, const char *name)
{
	struct bpf_map_info info;

	return !lbl_map_info(fd, &info) && !strncmp(info.name, name, sizeof(info.name) - 1);
}

int lbl_is_bpffs(const char *path)
{
	struct statfs where;

	return statfs(path, &where) ? -errno : where.f_type == BPF_FS_MAGIC;
}

int lbl_map_by_path(const char *path)
{
	int fd = bpf_obj_get(path), err = errno;

	if (fd >= 0)
		return fd;
	/*
	 * The kernel returns EACCES for any other file, which wrongly suggests a missing
	 * capability.
	 */
	return lbl_is_bpffs(path) ? -err : -EINVAL;
}

int lbl_map_by_id(uint32_t id)
{
	int fd = bpf_map_get_fd_by_id(id);

	return fd < 0 ? -errno : fd;
}

int lbl_map_inner(int fd, uint32_t index)
{
	struct bpf_map_info info;
	uint32_t id;
	int err;

	err = lbl_map_info(fd, &info);
	if (err)
		return err;
	if (info.type != BPF_MAP_TYPE_ARRAY_OF_MAPS)
		return -EINVAL;
	if (index >= info.max_entries)
		return -ERANGE;
	if (bpf_map_lookup_elem(fd, &index, &id))
		return -errno;
	return lbl_map_by_id(id);
}

int lbl_map_by_name(const char *name)
{
	int found = -ENOENT, fd;
	uint32_t id = 0;

	while (!bpf_map_get_next_id(id, &id)) {
		fd = bpf_map_get_fd_by_id(id);
		if (fd < 0) {
			if (errno == ENOENT) /* deleted since its id was read */
				continue;
			if (found >= 0)
				close(found);
			return -errno;
		}
		if (!lbl_map_is_called(fd, name)) {
			close(fd);
		} else if (found >= 0) {
			close(fd);
			close(found);
			return -ENOTUNIQ;
		} else {
			found = fd;
		}
	}
	if (found == -ENOENT && errno != ENOENT)
		return -errno;
	return found;
}

/* Return an fd of the program's lbl_counters map, if the program also uses the ring. */
static int counters_in(int prog_fd, uint32_t ring_id)
{
	uint32_t ids[MAPS_OF_PROGRAM], len = sizeof(struct bpf_prog_info), i;
	struct bpf_prog_info info = { .nr_map_ids = MAPS_OF_PROGRAM,
				      .map_ids = (uint64_t)(uintptr_t)ids };
	int found = -ENOENT;
	bool uses_ring = false;

	if (bpf_obj_get_info_by_fd(prog_fd, &info, &len))
		return -errno;
	for (i = 0; i < info.nr_map_ids && i < MAPS_OF_PROGRAM; i++)
		uses_ring |= ids[i] == ring_id;
	for (i = 0; uses_ring && i < info.nr_map_ids && i < MAPS_OF_PROGRAM && found < 0; i++) {
		int fd = bpf_map_get_fd_by_id(ids[i]);

		if (fd < 0)
			continue;
		if (lbl_map_is_called(fd, "lbl_counters"))
			found = fd;
		else
			close(fd);
	}
	return found;
}

/* Find the counters of a program that uses the ring. */
static int counters_of(int ring_fd)
{
	struct bpf_map_info ring;
	int found = -ENOENT;
	uint32_t id = 0;
	int err;

	err = lbl_map_info(ring_fd, &ring);
	if (err)
		return err;
	while (found < 0 && !bpf_prog_get_next_id(id, &id)) {
		int fd = bpf_prog_get_fd_by_id(id);

		if (fd < 0)
			continue;
		found = counters_in(fd, ring.id);
		close(fd);
	}
	return found;
}

static int counters_beside(const char *path)
{
	const char *slash = path ? strrchr(path, '/') : NULL;
	char beside[PATH_MAX];
	int length;

	if (!slash)
		return -ENOENT;
	length = snprintf(beside, sizeof(beside), "%.*s/lbl_counters", (int)(slash - path), path);
	return length < (int)sizeof(beside) ? lbl_map_by_path(beside) : -ENAMETOOLONG;
}

int lbl_counters_find(const char *path, int ring_fd)
{
	int found;

	if (!lbl_map_is_called(ring_fd, "lbl_events"))
		return -ENOENT;
	found = counters_beside(path);
	return found < 0 ? counters_of(ring_fd) : found;
}
