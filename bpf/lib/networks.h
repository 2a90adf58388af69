/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The rules that say which addresses and ports are backends: an LPM trie from networks to ranges of
 * ports. A look-up finds the longest network only, so user space (csrc/source/networks.h) gives each
 * network the ranges of the wider ones too, behind its own.
 */
#ifndef LBL_NETWORKS_H
#define LBL_NETWORKS_H

#include "lbl_abi.h"

/* cdef: begin */
enum {
	LBL_NETWORKS = 4096,
	LBL_PORT_RANGES = 32, /* per network */
};

struct lbl_network {
	__u32 prefix_bits; /* of family and address */
	__u8 family; /* 4 or 6, so that ::/0 has no IPv4 */
	__u8 addr[16]; /* as in an event */
	__u8 pad[3];
};

struct lbl_port_range {
	__u16 first, last; /* host order */
	__u16 proxy_id; /* 0: it names none */
};

/* The first range that has the port tells the proxy. */
struct lbl_port_ranges {
	__u16 n;
	struct lbl_port_range ranges[32];
};
/* cdef: end */

_Static_assert(sizeof(struct lbl_network) == 24, "lbl_network has no holes");
_Static_assert(sizeof(((struct lbl_port_ranges *)0)->ranges) ==
		       LBL_PORT_RANGES * sizeof(struct lbl_port_range),
	       "lbl_port_ranges has LBL_PORT_RANGES ranges");

#ifdef __bpf__
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, LBL_NETWORKS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct lbl_network);
	__type(value, struct lbl_port_ranges);
} lbl_networks SEC(".maps");

/* Return the range of the backend at 16 bytes of address and a port, host order; NULL if none. */
static __always_inline const struct lbl_port_range *lbl_network_find(const void *addr, bool ipv4,
								     __u16 port)
{
	struct lbl_network key = { .prefix_bits = 8 + 128, .family = ipv4 ? 4 : 6 };
	struct lbl_port_ranges *found;
	__u32 i;

	__builtin_memcpy(key.addr, addr, sizeof(key.addr));
	found = bpf_map_lookup_elem(&lbl_networks, &key);
	if (!found)
		return NULL;
	for (i = 0; i < LBL_PORT_RANGES && i < found->n; i++)
		if (port >= found->ranges[i].first && port <= found->ranges[i].last)
			return &found->ranges[i];
	return NULL;
}
#endif

#endif
