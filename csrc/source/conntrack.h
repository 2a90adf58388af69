/* SPDX-License-Identifier: MIT */
/* Read a balancer's connection tracking map, which has the creation times that events lack. */
#ifndef LBL_SOURCE_CONNTRACK_H
#define LBL_SOURCE_CONNTRACK_H

#include <stdint.h>

#include "lbl_abi.h"
#include "event/event.h"

/* cdef: begin */
struct lbl_conntrack;

/*
 * Open a hash map (plain or per-CPU, LRU or not) with the 16- or 40-byte keys of lbl_abi.h. The fd
 * is duplicated. On success, `*ret` has one reference, which lbl_conntrack_free() drops. -EINVAL
 * for any other map, -ENOMEM.
 */
int lbl_conntrack_open(int fd, struct lbl_conntrack **ret);
void lbl_conntrack_free(struct lbl_conntrack *conntrack);

/* Addresses in network order, IPv4 as ::ffff:a.b.c.d; ports in host order; times in ns. */
struct lbl_connection {
	uint8_t client_addr[16];
	uint8_t backend_addr[16];
	uint16_t client_port;
	uint16_t backend_port;
	uint8_t protocol;
	uint64_t created_ns;
	uint64_t last_seen_ns;
	uint64_t packets_fwd;
	uint64_t packets_rev;
	uint64_t bytes_fwd;
	uint64_t bytes_rev;
};

/*
 * Look up the connection with the addresses, ports and protocol of `ret`, and fill in the rest.
 * Returns 0, -ENOENT or another -errno.
 */
int lbl_conntrack_lookup(const struct lbl_conntrack *conntrack, struct lbl_connection *ret);

/*
 * List all connections; the caller frees the array with lbl_connections_free(). Entries inserted or
 * deleted during the walk may be missed or listed twice. Returns the number, or -ENOMEM.
 */
int64_t lbl_conntrack_list(const struct lbl_conntrack *conntrack, struct lbl_connection **ret);
void lbl_connections_free(struct lbl_connection *connections);
/* cdef: end */

/* Take a reference. NULL is legal. */
struct lbl_conntrack *lbl_conntrack_ref(struct lbl_conntrack *conntrack);

/* Make a source of creation times, valid while the caller holds a reference. */
struct lbl_birth_source lbl_conntrack_births(struct lbl_conntrack *conntrack);

#endif
