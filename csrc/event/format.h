/* SPDX-License-Identifier: MIT */
/* The formats of events: each is a file in this folder, and a word below. */
#ifndef LBL_EVENT_FORMAT_H
#define LBL_EVENT_FORMAT_H

#include "event/event.h"

struct lbl_event_format {
	uint32_t length;
	uint32_t extension; /* longer by multiples of this is known by its front; 0 = never */
	/* `data` may have any alignment, `ret` is zeroed. */
	void (*decode)(const void *data, struct lbl_decoded_event *ret);
};

/* The most frequent first. No two may have a length in common. */
#define LBL_EVENT_FORMATS(format)                                                                  \
	format(lbl_own_format) format(lbl_clj_packed_format) format(lbl_clj_native_format)

#define LBL_DECLARE_FORMAT(name) extern const struct lbl_event_format name;
LBL_EVENT_FORMATS(LBL_DECLARE_FORMAT)

#endif
