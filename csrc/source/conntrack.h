/* SPDX-License-Identifier: MIT */
/* A conntrack map, which knows when connections were created whose events do not tell it. */
#ifndef LBL_SOURCE_CONNTRACK_H
#define LBL_SOURCE_CONNTRACK_H

#include <stdint.h>

#include "lbl_abi.h"
#include "event/event.h"

/* cdef: begin */
struct lbl_conntrack;

/*
 * Read connections from a hash map (plain or per-CPU, LRU or not) with 16- or 40-byte keys as in
 * lbl_abi.h. The fd is duplicated. -EINVAL for any other map.
 */
int lbl_conntrack_open(int fd, struct lbl_conntrack **ret);
void lbl_conntrack_free(struct lbl_conntrack *conntrack);

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

/* Fill in the connection that has the key fields of `ret`. 0, or -ENOENT. */
int lbl_conntrack_lookup(const struct lbl_conntrack *conntrack, struct lbl_connection *ret);

/*
 * All connections of the map, to be freed with lbl_connections_free(). Returns how many. Entries
 * that come or go meanwhile may be missed or come twice.
 */
int64_t lbl_conntrack_list(const struct lbl_conntrack *conntrack, struct lbl_connection **ret);
void lbl_connections_free(struct lbl_connection *connections);
/* cdef: end */

/* NULL is legal. */
struct lbl_conntrack *lbl_conntrack_ref(struct lbl_conntrack *conntrack);

/* Ask the map while the caller holds a reference. */
struct lbl_birth_source lbl_conntrack_births(struct lbl_conntrack *conntrack);

#endif
