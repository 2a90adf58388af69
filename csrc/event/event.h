/* SPDX-License-Identifier: MIT */
/* A decoded event of any of the formats. */
#ifndef LBL_EVENT_EVENT_H
#define LBL_EVENT_EVENT_H

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "lbl_abi.h"

/* cdef: begin */
/* A decoded event of any of the formats. */
struct lbl_decoded_event {
	struct lbl_event event;
	uint8_t has_client; /* whether the event's format tells client and VIP, as below */
	uint8_t client_addr[16];
	uint8_t vip_addr[16]; /* the address that the client asked for */
	uint16_t client_port;
	uint16_t vip_port;
};
/* cdef: end */

/* Who else may know when a connection was created. */
struct lbl_birth_source {
	/* ns, 0 if unknown. Called for events that tell the client. */
	uint64_t (*created_ns)(void *ctx, const struct lbl_decoded_event *event);
	void *ctx;
};

/* Whether an address is ::ffff:a.b.c.d. */
static inline bool lbl_is_ipv4(const uint8_t *addr)
{
	uint64_t zero;
	uint32_t mapped;

	memcpy(&zero, addr, sizeof(zero));
	memcpy(&mapped, addr + 8, sizeof(mapped));
	return !zero && mapped == htonl(0xffff);
}

/* Says IPv4, but its address is not ::ffff:a.b.c.d: which of the two is wrong, nobody knows. */
static inline bool lbl_event_contradicts_itself(const struct lbl_event *event)
{
	return event->flags & LBL_FLAG_IPV4 && !lbl_is_ipv4(event->addr);
}

#endif
