/* SPDX-License-Identifier: MIT */
/* The table of event formats: one file in this folder and one entry below per format. */
#ifndef LBL_EVENT_FORMAT_H
#define LBL_EVENT_FORMAT_H

#include "event/event.h"

struct lbl_event_format {
	uint32_t length;
	uint32_t extension; /* longer records by multiples of this have the same front; 0 = none */
	/* `data` may be unaligned; `ret` is zeroed by the caller. */
	void (*decode)(const void *data, struct lbl_decoded_event *ret);
};

/* The most frequent format comes first. Each length belongs to one format only. */
#define LBL_EVENT_FORMATS(format)                                                                  \
	format(lbl_own_format) format(lbl_clj_packed_format) format(lbl_clj_native_format)

#define LBL_DECLARE_FORMAT(name) extern const struct lbl_event_format name;
LBL_EVENT_FORMATS(LBL_DECLARE_FORMAT)

#endif
