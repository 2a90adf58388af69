/* SPDX-License-Identifier: MIT */
/* Read the entries of a balancer's connection tracking map. */
#ifndef LBL_SOURCE_ENTRIES_H
#define LBL_SOURCE_ENTRIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* cdef: begin */
/*
 * Addresses in network order, IPv4 as ::ffff:a.b.c.d; ports in host order; times in ns. The VIP is
 * where the client's packets went; what is 0 of it is not told. `created_ns` is 0 if it is not told,
 * or if the CPUs' values have several VIPs: then they are of several connections.
 */
struct lbl_connection {
	uint8_t client_addr[16];
	uint8_t backend_addr[16];
	uint16_t client_port;
	uint16_t backend_port;
	uint8_t protocol;
	uint8_t vip_addr[16];
	uint16_t vip_port;
	bool is_split; /* several CPUs have a value */
	uint64_t created_ns;
	uint64_t last_seen_ns;
	uint64_t packets_fwd;
	uint64_t packets_rev;
	uint64_t bytes_fwd;
	uint64_t bytes_rev;
};
/* cdef: end */

/* Return whether both may be of one connection: no part of the VIP that both tell differs. */
bool lbl_same_vip(const struct lbl_connection *a, const struct lbl_connection *b);

struct lbl_entries {
	int fd;
	bool unified, per_cpu;
	uint32_t key_bytes;
	uint32_t value_bytes; /* of one CPU's value, as the kernel copies it */
	uint32_t max_entries;
	uint32_t n_values; /* of an entry; of a per-CPU map an upper bound, until it is measured */
	bool measured;
};

/* The fd is duplicated. -EINVAL if the map is no conntrack map, or another -errno. */
int lbl_entries_open(int fd, struct lbl_entries *ret);
void lbl_entries_close(struct lbl_entries *entries);

/*
 * Look up the connection with the addresses, ports and protocol of `ret`, and fill in the rest.
 * Returns 0, -ENOENT or another -errno. Thread-safe, as is lbl_entries_walk().
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
