/* SPDX-License-Identifier: MIT */
/* Decode a record of any known format. */
#ifndef LBL_EVENT_DECODE_H
#define LBL_EVENT_DECODE_H

#include "event/event.h"

/*
 * Decode `len` bytes at `data`, which may be unaligned. Returns 0, or -EINVAL if the length or type
 * is unknown, the event contradicts itself or its backend's address is reserved.
 */
int lbl_decode(const void *data, uint32_t len, struct lbl_decoded_event *ret);

#endif
