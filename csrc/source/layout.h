/* SPDX-License-Identifier: MIT */
/* Where a conntrack map has what: the two documented layouts, and any other that is described. */
#ifndef LBL_SOURCE_LAYOUT_H
#define LBL_SOURCE_LAYOUT_H

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

enum lbl_layout_field {
	LBL_AT_CLIENT,
	LBL_AT_BACKEND,
	LBL_AT_VIP,
	LBL_AT_CLIENT_PORT, /* the first of the numbers */
	LBL_AT_BACKEND_PORT,
	LBL_AT_VIP_PORT,
	LBL_AT_PROTOCOL,
	LBL_AT_CREATED,
	LBL_AT_LAST_SEEN,
	LBL_AT_PACKETS_FWD,
	LBL_AT_PACKETS_REV,
	LBL_AT_BYTES_FWD,
	LBL_AT_BYTES_REV,
	LBL_LAYOUT_FIELDS,
};

struct lbl_place {
	uint32_t offset; /* bytes */
	uint8_t bytes; /* 0: the map does not have it */
	bool in_value; /* else in the key */
	bool big_endian; /* addresses always are */
};

/* A map has at least client and backend with their ports, and the creation time. */
struct lbl_layout {
	struct lbl_place at[LBL_LAYOUT_FIELDS];
};

/*
 * Return the first field that a map with such keys and values cannot have there: an address has 4
 * or 16 bytes, a port and the protocol 1 or 2, another number 1, 2, 4 or 8. LBL_LAYOUT_FIELDS if
 * all is well.
 */
enum lbl_layout_field lbl_layout_misfit(const struct lbl_layout *layout, uint32_t key_bytes,
					uint32_t value_bytes);
/* Return whether a map with such keys and values has a layout of lbl_abi.h. */
bool lbl_layout_is_documented(uint32_t key_bytes, uint32_t value_bytes);
/* cdef: end */

/* Return the documented layout of a map with such keys and values, else NULL. */
const struct lbl_layout *lbl_layout_documented(uint32_t key_bytes, uint32_t value_bytes);

/* Read what a key has of a connection. */
void lbl_layout_read_key(const struct lbl_layout *layout, const uint8_t *key,
			 struct lbl_connection *ret);
/* Read what a value has of a connection; what it does not have stays as it is. */
void lbl_layout_read_value(const struct lbl_layout *layout, const uint8_t *value,
			   struct lbl_connection *ret);

#endif
