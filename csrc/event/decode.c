// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stddef.h>

#include "event/decode.h"
#include "event/format.h"

#define LBL_LIST_FORMAT(name) &name,

static const struct lbl_event_format *const formats[] = { LBL_EVENT_FORMATS(LBL_LIST_FORMAT) };

static bool has_length(const struct lbl_event_format *format, uint32_t len)
{
	if (len > format->length && format->extension)
		return (len - format->length) % format->extension == 0;
	return len == format->length;
}

static const struct lbl_event_format *find_format(uint32_t len)
{
	size_t i;

	for (i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
		if (has_length(formats[i], len))
			return formats[i];
	return NULL;
}

int lbl_decode(const void *data, uint32_t len, struct lbl_decoded_event *ret)
{
	const struct lbl_event_format *format = find_format(len);

	memset(ret, 0, sizeof(*ret));
	if (!format)
		return -EINVAL;
	format->decode(data, ret);
	/* Unknown reason from a newer producer: count it as unknown, not as malformed. */
	if (ret->event.reason >= LBL_REASONS)
		ret->event.reason = LBL_REASON_UNKNOWN;
	if (ret->event.type < LBL_OPENED || ret->event.type > LBL_PERIODIC)
		return -EINVAL;
	if (lbl_event_contradicts_itself(&ret->event) || lbl_is_reserved(ret->event.addr))
		return -EINVAL;
	return 0;
}
