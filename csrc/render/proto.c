// SPDX-License-Identifier: MIT
#include "render/proto.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire is little-endian");

static void advance(struct lbl_buffer *out, const char *to)
{
	out->n = (size_t)(to - out->at);
}

void lbl_put_int(struct lbl_buffer *out, uint32_t field, uint64_t value)
{
	char *to = lbl_buffer_room(out, LBL_FIELD_MAX);

	if (to)
		advance(out, lbl_write_int(to, field, value));
}

void lbl_put_double(struct lbl_buffer *out, uint32_t field, double value)
{
	char *to = lbl_buffer_room(out, LBL_FIELD_MAX);

	if (to)
		advance(out, lbl_write_8_bytes(to, field, &value));
}

void lbl_put_fixed(struct lbl_buffer *out, uint32_t field, uint64_t value)
{
	char *to = lbl_buffer_room(out, LBL_FIELD_MAX);

	if (to)
		advance(out, lbl_write_8_bytes(to, field, &value));
}

static void put_tag(struct lbl_buffer *out, uint32_t field)
{
	char *to = lbl_buffer_room(out, LBL_VARINT_MAX);

	if (to)
		advance(out, lbl_write_tag(to, field, LBL_WIRE_BYTES));
}

static void put_varint(struct lbl_buffer *out, uint64_t value)
{
	char *to = lbl_buffer_room(out, LBL_VARINT_MAX);

	if (to)
		advance(out, lbl_write_varint(to, value));
}

void lbl_put_bytes(struct lbl_buffer *out, uint32_t field, const void *bytes, size_t n)
{
	put_tag(out, field);
	put_varint(out, n);
	lbl_put(out, bytes, n);
}

size_t lbl_message_begin(struct lbl_buffer *out, uint32_t field)
{
	if (field)
		put_tag(out, field);
	return out->n;
}

void lbl_message_end(struct lbl_buffer *out, size_t start)
{
	size_t n = out->n - start, before = lbl_varint_bytes(n);
	char *to;

	if (!lbl_buffer_room(out, before))
		return;
	to = out->at + start;
	memmove(to + before, to, n);
	lbl_write_varint(to, n);
	out->n += before;
}
