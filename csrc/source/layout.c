// SPDX-License-Identifier: MIT
#include <endian.h>

#include "lbl_abi.h"
#include "base/util.h"
#include "source/layout.h"

#define IN_KEY(type, field)                                                                        \
	{                                                                                          \
		offsetof(struct type, field), sizeof(((struct type *)0)->field), false, true       \
	}
#define IN_VALUE(type, field)                                                                      \
	{                                                                                          \
		offsetof(struct type, field), sizeof(((struct type *)0)->field), true, true        \
	}
#define COUNTER(type, field)                                                                       \
	{                                                                                          \
		offsetof(struct type, field), sizeof(uint64_t), true, false                        \
	}
#define DOCUMENTED(key, value)                                                                     \
	{                                                                                          \
		{                                                                                  \
			[LBL_AT_CLIENT] = IN_KEY(key, src), [LBL_AT_BACKEND] = IN_KEY(key, dst),   \
			[LBL_AT_VIP] = IN_VALUE(value, orig_addr),                                 \
			[LBL_AT_CLIENT_PORT] = IN_KEY(key, sport),                                 \
			[LBL_AT_BACKEND_PORT] = IN_KEY(key, dport),                                \
			[LBL_AT_VIP_PORT] = IN_VALUE(value, orig_port),                            \
			[LBL_AT_PROTOCOL] = IN_KEY(key, protocol),                                 \
			[LBL_AT_CREATED] = COUNTER(value, created_ns),                             \
			[LBL_AT_LAST_SEEN] = COUNTER(value, last_seen_ns),                         \
			[LBL_AT_PACKETS_FWD] = COUNTER(value, packets_fwd),                        \
			[LBL_AT_PACKETS_REV] = COUNTER(value, packets_rev),                        \
			[LBL_AT_BYTES_FWD] = COUNTER(value, bytes_fwd),                            \
			[LBL_AT_BYTES_REV] = COUNTER(value, bytes_rev),                            \
		}                                                                                  \
	}

static const struct lbl_layout ipv4 = DOCUMENTED(lbl_ct_key4, lbl_ct_value4);
static const struct lbl_layout unified = DOCUMENTED(lbl_ct_key, lbl_ct_value);

const struct lbl_layout *lbl_layout_documented(uint32_t key_bytes, uint32_t value_bytes)
{
	if (key_bytes == sizeof(struct lbl_ct_key4) && value_bytes >= sizeof(struct lbl_ct_value4))
		return &ipv4;
	if (key_bytes == sizeof(struct lbl_ct_key) && value_bytes >= sizeof(struct lbl_ct_value))
		return &unified;
	return NULL;
}

bool lbl_layout_is_documented(uint32_t key_bytes, uint32_t value_bytes)
{
	return lbl_layout_documented(key_bytes, value_bytes);
}

/* ---- checks ---- */

static bool is_needed(enum lbl_layout_field field)
{
	return field == LBL_AT_CLIENT || field == LBL_AT_BACKEND || field == LBL_AT_CLIENT_PORT ||
	       field == LBL_AT_BACKEND_PORT || field == LBL_AT_CREATED;
}

static bool has_size(enum lbl_layout_field field, uint8_t bytes)
{
	if (field < LBL_AT_CLIENT_PORT)
		return bytes == 4 || bytes == 16;
	if (field <= LBL_AT_PROTOCOL)
		return bytes == 1 || bytes == 2;
	return bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8;
}

enum lbl_layout_field lbl_layout_misfit(const struct lbl_layout *layout, uint32_t key_bytes,
					uint32_t value_bytes)
{
	enum lbl_layout_field field;

	for (field = 0; field < LBL_LAYOUT_FIELDS; field++) {
		const struct lbl_place *at = &layout->at[field];
		uint64_t room = at->in_value ? value_bytes : key_bytes;

		if (!at->bytes) {
			if (is_needed(field))
				break;
		} else if (!has_size(field, at->bytes) || (uint64_t)at->offset + at->bytes > room) {
			break;
		}
	}
	return field;
}

/* ---- reading ---- */

static uint64_t read_number(const uint8_t *from, const struct lbl_place *at)
{
	uint64_t u64;
	uint32_t u32;
	uint16_t u16;

	switch (at->bytes) {
	case 1:
		return *from;
	case 2:
		memcpy(&u16, from, sizeof(u16));
		return at->big_endian ? be16toh(u16) : u16;
	case 4:
		memcpy(&u32, from, sizeof(u32));
		return at->big_endian ? be32toh(u32) : u32;
	default:
		memcpy(&u64, from, sizeof(u64));
		return at->big_endian ? be64toh(u64) : u64;
	}
}

/* IPv4 is 4 bytes, or 12 zero bytes and 4. A value of zeros tells no address. */
static void read_address(const uint8_t *from, const struct lbl_place *at, uint8_t *ret)
{
	static const uint8_t zeros[16], mapped_prefix[12] = { [10] = 0xff, [11] = 0xff };

	if (at->in_value && !memcmp(from, zeros, at->bytes))
		return;
	memcpy(ret + 16 - at->bytes, from, at->bytes);
	if (at->bytes == 4 || !memcmp(from, zeros, sizeof(mapped_prefix)))
		memcpy(ret, mapped_prefix, sizeof(mapped_prefix));
}

static void read_field(enum lbl_layout_field field, const uint8_t *from, const struct lbl_place *at,
		       struct lbl_connection *ret)
{
	uint64_t *numbers[] = {
		[LBL_AT_CREATED] = &ret->created_ns,	  [LBL_AT_LAST_SEEN] = &ret->last_seen_ns,
		[LBL_AT_PACKETS_FWD] = &ret->packets_fwd, [LBL_AT_PACKETS_REV] = &ret->packets_rev,
		[LBL_AT_BYTES_FWD] = &ret->bytes_fwd,	  [LBL_AT_BYTES_REV] = &ret->bytes_rev,
	};

	if (field == LBL_AT_CLIENT)
		read_address(from, at, ret->client_addr);
	else if (field == LBL_AT_BACKEND)
		read_address(from, at, ret->backend_addr);
	else if (field == LBL_AT_VIP)
		read_address(from, at, ret->vip_addr);
	else if (field == LBL_AT_CLIENT_PORT)
		ret->client_port = (uint16_t)read_number(from, at);
	else if (field == LBL_AT_BACKEND_PORT)
		ret->backend_port = (uint16_t)read_number(from, at);
	else if (field == LBL_AT_VIP_PORT)
		ret->vip_port = (uint16_t)read_number(from, at);
	else if (field == LBL_AT_PROTOCOL)
		ret->protocol = (uint8_t)read_number(from, at);
	else
		*numbers[field] = read_number(from, at);
}

static void read_part(const struct lbl_layout *layout, bool in_value, const uint8_t *from,
		      struct lbl_connection *ret)
{
	enum lbl_layout_field field;

	for (field = 0; field < LBL_LAYOUT_FIELDS; field++) {
		const struct lbl_place *at = &layout->at[field];

		if (at->bytes && at->in_value == in_value)
			read_field(field, from + at->offset, at, ret);
	}
}

void lbl_layout_read_key(const struct lbl_layout *layout, const uint8_t *key,
			 struct lbl_connection *ret)
{
	read_part(layout, false, key, ret);
}

void lbl_layout_read_value(const struct lbl_layout *layout, const uint8_t *value,
			   struct lbl_connection *ret)
{
	read_part(layout, true, value, ret);
}
