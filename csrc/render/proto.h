/* SPDX-License-Identifier: MIT */
/*
 * Protocol Buffers' wire format: https://protobuf.dev/programming-guides/encoding. A message within
 * another is written in place; its length is put before it when it ends.
 */
#ifndef LBL_RENDER_PROTO_H
#define LBL_RENDER_PROTO_H

#include "render/buffer.h"

/* The most bytes of a varint, and of a field that has a number. */
enum { LBL_VARINT_MAX = 10, LBL_FIELD_MAX = 2 + LBL_VARINT_MAX };

static inline char *lbl_write_varint(char *to, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		*to++ = (char)(value | 0x80);
	*to++ = (char)value;
	return to;
}

/* Signed integers of small size, of either sign, become small. */
static inline uint64_t lbl_zigzag(int64_t value)
{
	return (uint64_t)value << 1 ^ (uint64_t)(value >> 63);
}

static inline size_t lbl_varint_bytes(uint64_t value)
{
	return (size_t)(70 - __builtin_clzll(value | 1)) / 7;
}

enum lbl_wire { LBL_WIRE_VARINT, LBL_WIRE_8_BYTES, LBL_WIRE_BYTES };

static inline char *lbl_write_tag(char *to, uint32_t field, enum lbl_wire wire)
{
	return lbl_write_varint(to, field << 3 | wire);
}

static inline char *lbl_write_int(char *to, uint32_t field, uint64_t value)
{
	return lbl_write_varint(lbl_write_tag(to, field, LBL_WIRE_VARINT), value);
}

/* Little-endian, as both a double and a fixed64. */
static inline char *lbl_write_8_bytes(char *to, uint32_t field, const void *value)
{
	to = lbl_write_tag(to, field, LBL_WIRE_8_BYTES);
	memcpy(to, value, 8);
	return to + 8;
}

void lbl_put_int(struct lbl_buffer *out, uint32_t field, uint64_t value);
void lbl_put_double(struct lbl_buffer *out, uint32_t field, double value);
void lbl_put_fixed(struct lbl_buffer *out, uint32_t field, uint64_t value);
void lbl_put_bytes(struct lbl_buffer *out, uint32_t field, const void *bytes, size_t n);

/* Begin a message; pass what it returns to lbl_message_end(). */
size_t lbl_message_begin(struct lbl_buffer *out, uint32_t field);
void lbl_message_end(struct lbl_buffer *out, size_t start);

#endif
