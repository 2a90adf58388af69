// SPDX-License-Identifier: MIT
/* Decode each event format from the bytes that its producer writes. */
#include "common.h"
#include "event/decode.h"

static uint8_t bytes[200];
static struct lbl_decoded_event decoded;

static void put(uint32_t at, uint64_t value, uint32_t n)
{
	memcpy(bytes + at, &value, n);
}

static void put_big(uint32_t at, uint64_t value, uint32_t n)
{
	for (; n; value >>= 8)
		bytes[at + --n] = (uint8_t)value;
}

static bool is_address(const uint8_t *addr, uint8_t last)
{
	static const uint8_t prefix[15] = { [10] = 0xff, [11] = 0xff, [12] = 10, [14] = 7 };

	return !memcmp(addr, prefix, sizeof(prefix)) && addr[15] == last;
}

/* 10.0.7.3:40000 connected to 10.0.7.1:443, was sent to 10.0.7.2:8080, and closed after 5 s. */
static void check_foreign(uint32_t len)
{
	REQUIRE(lbl_decode(bytes, len, &decoded) == 0);
	CHECK(decoded.event.type == LBL_CLOSED && decoded.event.flags == LBL_FLAG_IPV4);
	CHECK(decoded.event.timestamp_ns == 5 * SECOND && !decoded.event.created_ns);
	CHECK(is_address(decoded.event.addr, 2) && decoded.event.port == 8080);
	CHECK(decoded.has_client && is_address(decoded.client_addr, 3));
	CHECK(decoded.client_port == 40000);
	CHECK(is_address(decoded.vip_addr, 1) && decoded.vip_port == 443);
	CHECK(!decoded.event.backend_id && !decoded.event.proxy_id);
	CHECK(decoded.event.reason == LBL_REASON_UNKNOWN && !decoded.event.connect_us);
}

static void test_foreign_packed(void)
{
	memset(bytes, 0, sizeof(bytes));
	bytes[0] = LBL_CLOSED;
	put_big(4, 5 * SECOND, 8);
	put_big(12, 0x0a000703, 4);
	put_big(16, 0x0a000701, 4);
	put_big(20, 40000, 2);
	put_big(22, 443, 2);
	put_big(24, 0x0a000702, 4);
	put_big(28, 8080, 2);
	check_foreign(64);
}

static void test_foreign_native(void)
{
	memset(bytes, 0, sizeof(bytes));
	bytes[0] = LBL_CLOSED;
	put(8, 5 * SECOND, 8);
	put(16, 0x0a000703, 4);
	put(20, 0x0a000701, 4);
	put(24, 40000, 2);
	put(26, 443, 2);
	put(28, 0x0a000702, 4);
	put(32, 8080, 2);
	check_foreign(72);
}

/* Our own event is copied unchanged, and so is the front of an extended one. */
static void test_own(void)
{
	struct lbl_event event = closed_event(SECOND, 1);
	uint32_t len;

	event.connect_us = 1;
	event.first_byte_us = 2;
	event.closing_us = 3;
	event.proxy_id = 4;
	memcpy(bytes, &event, sizeof(event));
	for (len = 0; len <= sizeof(bytes); len++) {
		int err = lbl_decode(bytes, len, &decoded);

		CHECK(!err == (len == 56 || len == 64 || len == 72 || len == 120 || len == 184));
		if (len % 64 == 56)
			CHECK(!decoded.has_client &&
			      !memcmp(&decoded.event, &event, sizeof(event)));
	}
}

static void test_every_type_and_reason(void)
{
	struct lbl_event event = closed_event(SECOND, 1);
	int i;

	for (i = 0; i < 256; i++) {
		event.type = (uint8_t)i;
		CHECK(!lbl_decode(&event, sizeof(event), &decoded) == (i >= 1 && i <= 3));
	}
	event.type = LBL_CLOSED;
	for (i = 0; i < 256; i++) {
		event.reason = (uint8_t)i;
		CHECK(!lbl_decode(&event, sizeof(event), &decoded));
		CHECK(decoded.event.reason == (i < LBL_REASONS ? i : LBL_REASON_UNKNOWN));
	}
}

/* LBL_FLAG_IPV4 is checked against each byte of the address prefix. */
static void test_an_address_that_belies_its_flag(void)
{
	int i;

	for (i = 0; i < 16; i++) {
		struct lbl_event event = closed_event(SECOND, 1);

		event.addr[i] ^= 1;
		CHECK(lbl_is_ipv4(event.addr) == (i >= 12));
		CHECK(lbl_decode(&event, sizeof(event), &decoded) == (i < 12 ? -EINVAL : 0));
		event.flags = LBL_FLAG_PROBE;
		CHECK(lbl_decode(&event, sizeof(event), &decoded) == 0);
	}
}

/* Of all first two bytes that an address may have, one pair is reserved. */
static void test_reserved_addresses(void)
{
	uint32_t i;

	for (i = 0; i <= UINT16_MAX; i++) {
		struct lbl_event event = closed_event(SECOND, 1);

		event.flags = 0;
		event.addr[0] = (uint8_t)(i >> 8);
		event.addr[1] = (uint8_t)i;
		CHECK(lbl_decode(&event, sizeof(event), &decoded) == (i == 0xff00 ? -EINVAL : 0));
	}
}

int main(void)
{
	RUN(test_reserved_addresses);
	RUN(test_own);
	RUN(test_foreign_packed);
	RUN(test_foreign_native);
	RUN(test_every_type_and_reason);
	RUN(test_an_address_that_belies_its_flag);
	return checks_done();
}
