/* SPDX-License-Identifier: MIT */
/* A decoded event, the same for all formats. */
#ifndef LBL_EVENT_EVENT_H
#define LBL_EVENT_EVENT_H

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "lbl_abi.h"

/* cdef: begin */
struct lbl_decoded_event {
	struct lbl_event event;
	uint8_t has_client; /* 1 if the format contains client and VIP: the fields below */
	uint8_t client_addr[16];
	uint8_t vip_addr[16]; /* destination address of the client's packets */
	uint16_t client_port;
	uint16_t vip_port;
};
/* cdef: end */

/* A further source of creation times, for events that contain none. */
struct lbl_birth_source {
	/* Return ns, or 0 if unknown. Called only for events that contain the client. */
	uint64_t (*created_ns)(void *ctx, const struct lbl_decoded_event *event);
	void *ctx;
	/*
	 * Told of a closed event whose creation time an opened event has told: what the source
	 * knows of this connection is no later one's. May be NULL.
	 */
	void (*used)(void *ctx, const struct lbl_decoded_event *event);
};

/* Return whether an address is ::ffff:a.b.c.d. */
static inline bool lbl_is_ipv4(const uint8_t *addr)
{
	uint64_t zero;
	uint32_t mapped;

	memcpy(&zero, addr, sizeof(zero));
	memcpy(&mapped, addr + 8, sizeof(mapped));
	return !zero && mapped == htonl(0xffff);
}

/* Return when the connection of an opened event began, in ns. */
static inline uint64_t lbl_event_began(const struct lbl_event *event)
{
	return event->created_ns ? event->created_ns : event->timestamp_ns;
}

/*
 * Return whether the event has LBL_FLAG_IPV4 but an address that is not ::ffff:a.b.c.d. Either
 * could be wrong, so the event is malformed.
 */
static inline bool lbl_event_contradicts_itself(const struct lbl_event *event)
{
	return event->flags & LBL_FLAG_IPV4 && !lbl_is_ipv4(event->addr);
}

/*
 * Return whether an address is in ff00::/16, multicast of the reserved scope 0, which no packet may
 * have (RFC 4291). We use such addresses in keys, so an event with one is malformed.
 */
static inline bool lbl_is_reserved(const uint8_t *addr)
{
	return addr[0] == 0xff && !addr[1];
}

#endif
