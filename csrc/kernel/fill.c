// SPDX-License-Identifier: MIT
#include <bpf/bpf.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "kernel/fill.h"

enum { KEY_BYTES = 32 };

static bool has_key(const struct lbl_entries *entries, const void *key)
{
	size_t i;

	for (i = 0; i < entries->n; i++)
		if (!memcmp(entries->first + i * entries->stride, key, entries->key_bytes))
			return true;
	return false;
}

static int delete_others(int fd, const struct lbl_entries *entries)
{
	char key[KEY_BYTES], *after = NULL;

	while (!bpf_map_get_next_key(fd, after, key)) {
		after = has_key(entries, key) ? key : NULL;
		if (!after && bpf_map_delete_elem(fd, key))
			return -errno;
	}
	return errno == ENOENT ? 0 : -errno;
}

int lbl_map_fill(int fd, const struct lbl_entries *entries)
{
	size_t i;
	int err;

	if (entries->key_bytes > KEY_BYTES)
		return -EINVAL;
	err = delete_others(fd, entries); /* first, so that there is room */
	for (i = 0; i < entries->n && !err; i++) {
		const char *entry = entries->first + i * entries->stride;

		if (bpf_map_update_elem(fd, entry, entry + entries->value_at, BPF_ANY))
			err = -errno;
	}
	return err == -ENOSPC ? -E2BIG : err;
}
