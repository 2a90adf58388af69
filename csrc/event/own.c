// SPDX-License-Identifier: MIT
/* Events as defined in lbl_abi.h. */
#include "event/format.h"

static void decode(const void *data, struct lbl_decoded_event *ret)
{
	memcpy(&ret->event, data, sizeof(ret->event));
}

const struct lbl_event_format lbl_own_format = {
	.length = LBL_EVENT_BYTES,
	.extension = LBL_EVENT_STRIDE,
	.decode = decode,
};
