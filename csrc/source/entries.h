/* SPDX-License-Identifier: MIT */
/* Read the entries of a balancer's connection tracking map. */
#ifndef LBL_SOURCE_ENTRIES_H
#define LBL_SOURCE_ENTRIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "source/layout.h"

/* Return whether both may be of one connection: no part of the VIP that both tell differs. */
bool lbl_same_vip(const struct lbl_connection *a, const struct lbl_connection *b);

struct lbl_entries {
	int fd;
	bool per_cpu;
	bool documented; /* the layout is, so there can be look-ups */
	struct lbl_layout layout;
	uint32_t key_bytes;
	uint32_t value_bytes; /* of one CPU's value, as the kernel copies it */
	uint32_t max_entries;
	uint32_t n_values; /* of an entry; of a per-CPU map an upper bound, until it is measured */
	bool measured;
};

/*
 * Open a hash map, plain or per-CPU, LRU or not; `layout` is NULL for a documented one. The fd is
 * duplicated. -EINVAL if the map is of another kind or does not fit the layout, or another -errno.
 */
int lbl_entries_open(int fd, const struct lbl_layout *layout, struct lbl_entries *ret);
void lbl_entries_close(struct lbl_entries *entries);

/*
 * Look up the connection with the addresses, ports and protocol of `ret`, and fill in the rest.
 * Returns 0, -ENOENT, -EOPNOTSUPP if the layout is not documented, or another -errno. Thread-safe, as
 * is lbl_entries_walk().
 */
int lbl_entries_lookup(const struct lbl_entries *entries, struct lbl_connection *ret);

/* Receives `n` connections. A return value that is not 0 ends the walk. */
typedef int (*lbl_entries_visit)(void *ctx, const struct lbl_connection *found, size_t n);

/*
 * Visit all connections, in batches. One that stays in the map all the while comes exactly once,
 * whatever comes and goes beside it; the others come once or not at all, or once per time that they
 * were inserted. Returns 0, what `visit` returned, or -errno.
 */
int lbl_entries_walk(struct lbl_entries *entries, lbl_entries_visit visit, void *ctx);

#endif
