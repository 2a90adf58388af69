/* SPDX-License-Identifier: MIT */
/* From a record to a decoded event. */
#ifndef LBL_EVENT_DECODE_H
#define LBL_EVENT_DECODE_H

#include "event/event.h"

/* -EINVAL for a record of no known length or type, or one that contradicts itself. */
int lbl_decode(const void *data, uint32_t len, struct lbl_decoded_event *ret);

#endif
