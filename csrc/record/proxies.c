// SPDX-License-Identifier: MIT
#include <stdio.h>
#include <stdlib.h>

#include "base/util.h"
#include "record/proxies.h"

/* ---- keys of named VIPs ---- */

/*
 * Formats that tell the VIP are IPv4 only. In a named VIP's key, this replaces the 12 bytes before
 * the address, and `proxy_ref` is the name's number. It is reserved, so no event's.
 */
static const uint8_t vip_prefix[12] = { 0xff };
static const uint8_t ipv4_prefix[12] = { [10] = 0xff, [11] = 0xff };

static bool is_vip_key(const struct lbl_key *key)
{
	return !memcmp(key->addr, vip_prefix, sizeof(vip_prefix));
}

static void make_vip_key(struct lbl_key *key, uint16_t name)
{
	memcpy(key->addr, vip_prefix, sizeof(vip_prefix));
	key->proxy_ref = name;
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
	*proxies = (struct lbl_proxies){ .names = names, .of_id = calloc(IDS, sizeof(uint32_t)) };
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
	proxies->of_id[id] = 1U + name;
	if (id >= proxies->ids_end)
		proxies->ids_end = id + 1U;
}

int lbl_proxies_reserve_vips(struct lbl_proxies *proxies, size_t n)
{
	proxies->vips = calloc(n + 1, sizeof(*proxies->vips));
	return proxies->vips ? 0 : -ENOMEM;
}

static int compare_vips(const void *a, const void *b)
{
	return memcmp(a, b, offsetof(struct lbl_vip, name));
}

void lbl_proxies_add_vip(struct lbl_proxies *proxies, const uint8_t *addr, uint16_t port,
			 uint16_t name)
{
	struct lbl_vip *vip = &proxies->vips[proxies->n_vips++];

	*vip = (struct lbl_vip){ .port = port, .name = name };
	memcpy(vip->addr, addr, sizeof(vip->addr));
}

void lbl_proxies_sort_vips(struct lbl_proxies *proxies)
{
	qsort(proxies->vips, proxies->n_vips, sizeof(*proxies->vips), compare_vips);
}

/* ---- use ---- */

struct lbl_key lbl_proxies_key(const struct lbl_proxies *proxies,
			       const struct lbl_decoded_event *event)
{
	struct lbl_key key = *lbl_key_of(&event->event);
	struct lbl_vip wanted = { .port = event->vip_port };
	const struct lbl_vip *vip;

	if (!event->has_client || !proxies->n_vips)
		return key;
	memcpy(wanted.addr, event->vip_addr, sizeof(wanted.addr));
	vip = bsearch(&wanted, proxies->vips, proxies->n_vips, sizeof(wanted), compare_vips);
	if (vip)
		make_vip_key(&key, vip->name);
	return key;
}

uint16_t lbl_proxies_name(struct lbl_proxies *proxies, const struct lbl_key *key)
{
	char text[16];
	int name;

	if (is_vip_key(key))
		return key->proxy_ref;
	if (proxies->of_id[key->proxy_ref])
		return (uint16_t)(proxies->of_id[key->proxy_ref] - 1);
	name = lbl_intern_insert(proxies->names, text,
				 (size_t)snprintf(text, sizeof(text), "proxy-%u", key->proxy_ref));
	if (name < 0)
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
		if (proxies->of_id[(*at)++] == 1U + named->proxy_ref)
			return true;
	}
	if (*at > proxies->ids_end || !proxies->n_vips || !lbl_is_ipv4(named->addr))
		return false;
	(*at)++;
	make_vip_key(ret, named->proxy_ref);
	return true;
}
