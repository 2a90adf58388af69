// SPDX-License-Identifier: MIT
/* The three event formats, told apart by their length, into one form. */
#include <arpa/inet.h>
#include <endian.h>

#include "event/decode.h"
#include "base/util.h"

static void map_ipv4(uint8_t *addr, uint32_t network_order)
{
	memset(addr, 0, 10);
	memset(addr + 10, 0xff, 2);
	memcpy(addr + 12, &network_order, sizeof(network_order));
}

static void decode64(const void *data, struct lbl_decoded_event *ret)
{
	struct lbl_event64 from;

	memcpy(&from, data, sizeof(from));
	ret->event.type = from.type;
	ret->event.timestamp_ns = be64toh(from.timestamp_ns);
	ret->event.port = ntohs(from.target_port);
	map_ipv4(ret->event.addr, from.target_addr);
	map_ipv4(ret->client_addr, from.src_addr);
	map_ipv4(ret->vip_addr, from.dst_addr);
	ret->client_port = ntohs(from.src_port);
	ret->vip_port = ntohs(from.dst_port);
}

static void decode72(const void *data, struct lbl_decoded_event *ret)
{
	struct lbl_event72 from;

	memcpy(&from, data, sizeof(from));
	ret->event.type = from.type;
	ret->event.timestamp_ns = from.timestamp_ns;
	ret->event.port = from.target_port;
	map_ipv4(ret->event.addr, htonl(from.target_addr));
	map_ipv4(ret->client_addr, htonl(from.src_addr));
	map_ipv4(ret->vip_addr, htonl(from.dst_addr));
	ret->client_port = from.src_port;
	ret->vip_port = from.dst_port;
}

int lbl_decode(const void *data, uint32_t len, struct lbl_decoded_event *ret)
{
	memset(ret, 0, sizeof(*ret));
	switch (len) {
	case LBL_EVENT_BYTES:
		memcpy(&ret->event, data, sizeof(ret->event));
		break;
	case LBL_EVENT64_BYTES:
		decode64(data, ret);
		break;
	case LBL_EVENT72_BYTES:
		decode72(data, ret);
		break;
	default:
		return -EINVAL;
	}
	if (len != LBL_EVENT_BYTES) {
		ret->event.flags = LBL_FLAG_IPV4;
		ret->event.first_byte_us = LBL_FIRST_BYTE_NONE;
		ret->has_client = 1;
	}
	/* A newer producer's reason is a reason that we do not know, not a broken event. */
	if (ret->event.reason >= LBL_REASONS)
		ret->event.reason = LBL_REASON_UNKNOWN;
	return ret->event.type >= LBL_OPENED && ret->event.type <= LBL_PERIODIC ? 0 : -EINVAL;
}
