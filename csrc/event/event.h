/* SPDX-License-Identifier: MIT */
/* A decoded event of any of the formats. */
#ifndef LBL_EVENT_EVENT_H
#define LBL_EVENT_EVENT_H

#include <stdint.h>

#include "lbl_abi.h"

/* cdef: begin */
/* A decoded event of any of the formats. */
struct lbl_decoded_event {
	struct lbl_event event;
	uint8_t has_client; /* 64- and 72-byte events only: who, and the address they asked for */
	uint8_t client_addr[16];
	uint8_t vip_addr[16];
	uint16_t client_port;
	uint16_t vip_port;
};
/* cdef: end */

#endif
