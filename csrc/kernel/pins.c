// SPDX-License-Identifier: MIT
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "kernel/pins.h"

static int pin(struct bpf_map *map, const char *directory)
{
	char path[PATH_MAX];
	int length = snprintf(path, sizeof(path), "%s/%s", directory, bpf_map__name(map));

	if (length >= (int)sizeof(path))
		return -ENAMETOOLONG;
	return bpf_map__pin(map, path);
}

int lbl_pins_add(struct bpf_map *const *maps, size_t n, const char *directory)
{
	int err = 0;
	size_t i;

	for (i = 0; i < n; i++)
		if (bpf_map__is_pinned(maps[i]))
			return -EBUSY;
	if (mkdir(directory, 0750) && errno != EEXIST)
		return -errno;
	for (i = 0; i < n && !err; i++)
		err = pin(maps[i], directory);
	if (err)
		lbl_pins_remove(maps, n);
	return err;
}

int lbl_pins_remove(struct bpf_map *const *maps, size_t n)
{
	int first = 0, err;
	size_t i;

	for (i = 0; i < n; i++) {
		err = bpf_map__is_pinned(maps[i]) ? bpf_map__unpin(maps[i], NULL) : 0;
		if (err && err != -ENOENT && !first)
			first = err;
		/* libbpf remembers the path, and would refuse a different one later. */
		bpf_map__set_pin_path(maps[i], NULL);
	}
	return first;
}

int lbl_pin(int fd, const char *path)
{
	return bpf_obj_pin(fd, path) ? -errno : 0;
}

int lbl_pinned(const char *path)
{
	int fd = bpf_obj_get(path);

	return fd < 0 ? -errno : fd;
}

int lbl_dup(int fd, int *ret)
{
	*ret = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return *ret < 0 ? -errno : 0;
}
