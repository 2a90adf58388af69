// SPDX-License-Identifier: MIT
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "base/util.h"
#include "kernel/maps.h"
#include "kernel/users.h"

enum { MAPS_OF_PROGRAM = 64 };

struct text {
	char *at;
	size_t left; /* with the final 0 */
};

__attribute__((format(printf, 2, 3))) static void append(struct text *text, const char *format, ...)
{
	va_list values;
	int len;

	va_start(values, format);
	len = vsnprintf(text->at, text->left, format, values);
	va_end(values);
	if (len < 0)
		return;
	if ((size_t)len >= text->left)
		len = (int)text->left - 1;
	text->at += len;
	text->left -= (size_t)len;
}

/* Read a program's own name and whether it uses the map. */
static bool uses(uint32_t prog_id, uint32_t map_id, struct bpf_prog_info *ret)
{
	uint32_t ids[MAPS_OF_PROGRAM], len = sizeof(*ret), i;
	int fd = bpf_prog_get_fd_by_id(prog_id), err;
	bool found = false;

	if (fd < 0)
		return false;
	memset(ret, 0, sizeof(*ret));
	ret->nr_map_ids = MAPS_OF_PROGRAM;
	ret->map_ids = (uint64_t)(uintptr_t)ids;
	err = bpf_obj_get_info_by_fd(fd, ret, &len);
	close(fd);
	for (i = 0; !err && i < ret->nr_map_ids && i < MAPS_OF_PROGRAM; i++)
		found |= ids[i] == map_id;
	return found;
}

static void append_users(struct text *text, uint32_t map_id)
{
	const char *before = "used by ";
	struct bpf_prog_info prog;
	uint32_t id = 0;

	while (!bpf_prog_get_next_id(id, &id)) {
		if (!uses(id, map_id, &prog))
			continue;
		append(text, "%s%s %u", before, prog.name, prog.id);
		before = " and ";
	}
	if (*before == 'u')
		append(text, "used by no program");
}

int lbl_maps_called(const char *name, char *ret, size_t size)
{
	struct text text = { .at = ret, .left = size };
	struct bpf_map_info map;
	uint32_t id = 0;
	int count = 0;

	while (!bpf_map_get_next_id(id, &id)) {
		int fd = bpf_map_get_fd_by_id(id), err;
		const char *type;

		if (fd < 0 && errno == ENOENT) /* deleted since its id was read */
			continue;
		if (fd < 0)
			return -errno;
		err = lbl_map_info(fd, &map);
		close(fd);
		if (err || strncmp(map.name, name, sizeof(map.name) - 1))
			continue;
		type = libbpf_bpf_map_type_str(map.type);
		append(&text, "%s%u (%s, ", count ? ", " : "", map.id, type ? type : "unknown");
		append_users(&text, map.id);
		append(&text, ")");
		count++;
	}
	return count || errno == ENOENT ? count : -errno;
}
