// SPDX-License-Identifier: MIT
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <limits.h>
#include <stdio.h>

#include "base/util.h"
#include "kernel/maps.h"
#include "kernel/members.h"

enum { DEPTH_MAX = 8 };

int lbl_map_sizes(int fd, struct lbl_map_sizes *ret)
{
	struct bpf_map_info info;
	int err = lbl_map_info(fd, &info);

	*ret = (struct lbl_map_sizes){ info.key_size, info.value_size, info.max_entries };
	return err;
}

struct list {
	const struct btf *btf;
	bool in_value;
	struct lbl_member *members;
	size_t n, room;
};

/* Skip typedefs and the like. Returns NULL for void. */
static const struct btf_type *resolve(const struct list *list, uint32_t id, bool *big_endian)
{
	const struct btf_type *type = btf__type_by_id(list->btf, id);

	*big_endian = false;
	while (type && (btf_is_mod(type) || btf_is_typedef(type))) {
		const char *name = btf__name_by_offset(list->btf, type->name_off);

		*big_endian |= btf_is_typedef(type) && name && !strncmp(name, "__be", 4);
		type = btf__type_by_id(list->btf, type->type);
	}
	return type;
}

static void add_all(struct list *list, const struct btf_type *of, const char *prefix,
		    uint32_t offset, int depth);

static void add(struct list *list, const struct btf_member *member, const char *prefix,
		uint32_t offset, int depth)
{
	const char *own = btf__name_by_offset(list->btf, member->name_off);
	int64_t bytes = btf__resolve_size(list->btf, member->type);
	struct lbl_member made = { .offset = offset, .in_value = list->in_value };
	const struct btf_type *type = resolve(list, member->type, &made.big_endian);

	if (!own || !type || bytes < 0)
		return;
	made.bytes = (uint32_t)bytes;
	if (snprintf(made.name, sizeof(made.name), "%s%s%s", prefix, *prefix && *own ? "." : "",
		     own) >= (int)sizeof(made.name))
		return;
	if (btf_is_composite(type))
		add_all(list, type, made.name, offset, depth + 1);
	else if (list->n < list->room)
		list->members[list->n++] = made;
}

static void add_all(struct list *list, const struct btf_type *of, const char *prefix,
		    uint32_t offset, int depth)
{
	const struct btf_member *members = btf_members(of);
	uint16_t i;

	for (i = 0; i < btf_vlen(of) && depth < DEPTH_MAX && list->n < list->room; i++) {
		uint32_t bits = btf_member_bit_offset(of, i);

		if (bits % CHAR_BIT == 0 && !btf_member_bitfield_size(of, i))
			add(list, &members[i], prefix, offset + bits / CHAR_BIT, depth);
	}
}

static void add_part(struct list *list, uint32_t id, bool in_value)
{
	bool unused;
	const struct btf_type *type = resolve(list, id, &unused);

	list->in_value = in_value;
	if (type && btf_is_composite(type))
		add_all(list, type, "", 0, 0);
}

int lbl_map_members(int fd, struct lbl_member *ret, size_t n)
{
	struct list list = { .members = ret, .room = n };
	struct bpf_map_info info;
	struct btf *btf;
	int err = lbl_map_info(fd, &info);

	if (err)
		return err;
	if (!info.btf_id)
		return 0;
	btf = btf__load_from_kernel_by_id(info.btf_id);
	if (!btf)
		return -errno;
	list.btf = btf;
	add_part(&list, info.btf_key_type_id, false);
	add_part(&list, info.btf_value_type_id, true);
	btf__free(btf);
	return (int)list.n;
}
