// SPDX-License-Identifier: MIT
/*
 * Events of clj-ebpf-lb. Its codec packs them, big-endian; its BPF program writes the same C struct
 * unpacked, in host order, addresses included. Both contain client and VIP, but neither a creation
 * time nor a reason.
 */
#include <arpa/inet.h>
#include <endian.h>

#include "event/format.h"

struct clj_packed_event {
	uint8_t type;
	uint8_t pad0[3];
	uint64_t timestamp_ns;
	uint32_t src_addr, dst_addr;
	uint16_t src_port, dst_port;
	uint32_t target_addr;
	uint16_t target_port;
	uint8_t pad1[2];
	uint64_t packets_fwd, bytes_fwd, packets_rev, bytes_rev;
} __attribute__((packed));

struct clj_native_event {
	uint8_t type;
	uint64_t timestamp_ns;
	uint32_t src_addr, dst_addr;
	uint16_t src_port, dst_port;
	uint32_t target_addr;
	uint16_t target_port;
	uint64_t packets_fwd, bytes_fwd, packets_rev, bytes_rev;
};

LBL_ASSERT(sizeof(struct clj_packed_event) == 64, "clj_packed_event is 64 bytes");
LBL_AT(clj_packed_event, timestamp_ns, 4);
LBL_AT(clj_packed_event, src_addr, 12);
LBL_AT(clj_packed_event, target_addr, 24);
LBL_AT(clj_packed_event, target_port, 28);
LBL_AT(clj_packed_event, packets_fwd, 32);

LBL_ASSERT(sizeof(struct clj_native_event) == 72, "clj_native_event is 72 bytes");
LBL_AT(clj_native_event, timestamp_ns, 8);
LBL_AT(clj_native_event, src_addr, 16);
LBL_AT(clj_native_event, target_addr, 28);
LBL_AT(clj_native_event, target_port, 32);
LBL_AT(clj_native_event, packets_fwd, 40);

static void map_ipv4(uint8_t *addr, uint32_t network_order)
{
	memset(addr + 10, 0xff, 2);
	memcpy(addr + 12, &network_order, sizeof(network_order));
}

static void decode_packed(const void *data, struct lbl_decoded_event *ret)
{
	struct clj_packed_event from;

	memcpy(&from, data, sizeof(from));
	ret->event.type = from.type;
	ret->event.flags = LBL_FLAG_IPV4;
	ret->event.timestamp_ns = be64toh(from.timestamp_ns);
	ret->event.port = ntohs(from.target_port);
	map_ipv4(ret->event.addr, from.target_addr);
	ret->has_client = 1;
	map_ipv4(ret->client_addr, from.src_addr);
	map_ipv4(ret->vip_addr, from.dst_addr);
	ret->client_port = ntohs(from.src_port);
	ret->vip_port = ntohs(from.dst_port);
}

static void decode_native(const void *data, struct lbl_decoded_event *ret)
{
	struct clj_native_event from;

	memcpy(&from, data, sizeof(from));
	ret->event.type = from.type;
	ret->event.flags = LBL_FLAG_IPV4;
	ret->event.timestamp_ns = from.timestamp_ns;
	ret->event.port = from.target_port;
	map_ipv4(ret->event.addr, htonl(from.target_addr));
	ret->has_client = 1;
	map_ipv4(ret->client_addr, htonl(from.src_addr));
	map_ipv4(ret->vip_addr, htonl(from.dst_addr));
	ret->client_port = from.src_port;
	ret->vip_port = from.dst_port;
}

const struct lbl_event_format lbl_clj_packed_format = {
	.length = sizeof(struct clj_packed_event),
	.decode = decode_packed,
};

const struct lbl_event_format lbl_clj_native_format = {
	.length = sizeof(struct clj_native_event),
	.decode = decode_native,
};
