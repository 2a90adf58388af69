// SPDX-License-Identifier: MIT
#include <stdio.h>
#include <stdlib.h>

#include "base/util.h"
#include "record/proxies.h"

/* ---- keys of named VIPs ---- */

/*
 * Formats that tell the VIP are IPv4 only. In a named VIP's key, this replaces the 12 bytes before
 * the address, and `proxy_ref` is the VIP's number. It is multicast, so no backend's.
 */
static const uint8_t vip_prefix[12] = { 0xff, 'l', 'b', 'l', ' ', 'v', 'i', 'p' };
static const uint8_t ipv4_prefix[12] = { [10] = 0xff, [11] = 0xff };

static bool is_vip_key(const struct lbl_key *key)
{
	return !memcmp(key->addr, vip_prefix, sizeof(vip_prefix));
}

static void make_vip_key(struct lbl_key *key, uint32_t vip)
{
	memcpy(key->addr, vip_prefix, sizeof(vip_prefix));
	key->proxy_ref = (uint16_t)vip;
}

struct lbl_key lbl_key_named(const struct lbl_key *key, uint16_t name)
{
	struct lbl_key named = *key;

	if (is_vip_key(key))
		memcpy(named.addr, ipv4_prefix, sizeof(ipv4_prefix));
	named.proxy_ref = name;
	return named;
}

/* ---- creation ---- */

enum { IDS = UINT16_MAX + 1 };

int lbl_proxies_init(struct lbl_proxies *proxies, struct lbl_intern *names)
{
	*proxies = (struct lbl_proxies){ .names = names, .of_id = calloc(IDS, sizeof(uint16_t)) };
	return proxies->of_id ? 0 : -ENOMEM;
}

void lbl_proxies_destroy(struct lbl_proxies *proxies)
{
	free(proxies->of_id);
	free(proxies->vips);
	*proxies = (struct lbl_proxies){ 0 };
}

void lbl_proxies_set(struct lbl_proxies *proxies, uint16_t id, uint16_t name)
{
	proxies->of_id[id] = name;
	if (id >= proxies->ids_end)
		proxies->ids_end = id + 1U;
}

int lbl_proxies_add_vip(struct lbl_proxies *proxies, const uint8_t *addr, uint16_t port,
			uint16_t name)
{
	struct lbl_vip *larger =
		reallocarray(proxies->vips, (size_t)proxies->n_vips + 1, sizeof(*larger));

	if (!larger)
		return -ENOMEM;
	proxies->vips = larger;
	larger[proxies->n_vips] = (struct lbl_vip){ .port = port, .name = name };
	memcpy(larger[proxies->n_vips++].addr, addr, sizeof(larger->addr));
	return 0;
}

/* ---- use ---- */

struct lbl_key lbl_proxies_key(const struct lbl_proxies *proxies,
			       const struct lbl_decoded_event *event)
{
	struct lbl_key key = *lbl_key_of(&event->event);
	uint32_t i;

	for (i = 0; event->has_client && i < proxies->n_vips; i++) {
		const struct lbl_vip *vip = &proxies->vips[i];

		if (vip->port == event->vip_port &&
		    !memcmp(vip->addr, event->vip_addr, sizeof(vip->addr))) {
			make_vip_key(&key, i);
			break;
		}
	}
	return key;
}

uint16_t lbl_proxies_name(struct lbl_proxies *proxies, const struct lbl_key *key)
{
	char text[16];
	int name;

	if (is_vip_key(key) && key->proxy_ref < proxies->n_vips)
		return proxies->vips[key->proxy_ref].name;
	if (proxies->of_id[key->proxy_ref])
		return proxies->of_id[key->proxy_ref];
	name = lbl_intern_insert(proxies->names, text,
				 (size_t)snprintf(text, sizeof(text), "proxy-%u", key->proxy_ref));
	if (name <= 0)
		return 0;
	lbl_proxies_set(proxies, key->proxy_ref, (uint16_t)name);
	return (uint16_t)name;
}

bool lbl_proxies_next(const struct lbl_proxies *proxies, const struct lbl_key *named, size_t *at,
		      struct lbl_key *ret)
{
	*ret = *named;
	while (*at < proxies->ids_end) {
		ret->proxy_ref = (uint16_t)*at;
		if (proxies->of_id[(*at)++] == named->proxy_ref)
			return true;
	}
	while (*at < (size_t)proxies->ids_end + proxies->n_vips) {
		uint32_t vip = (uint32_t)((*at)++ - proxies->ids_end);

		if (proxies->vips[vip].name == named->proxy_ref && lbl_is_ipv4(named->addr)) {
			make_vip_key(ret, vip);
			return true;
		}
	}
	return false;
}
