/* SPDX-License-Identifier: MIT */
/* The names of a shard's listeners: by the proxy id of an event, or by its VIP. */
#ifndef LBL_RECORD_PROXIES_H
#define LBL_RECORD_PROXIES_H

#include "base/intern.h"
#include "event/event.h"
#include "record/table.h"

struct lbl_vip {
	uint8_t addr[16];
	uint16_t port;
	uint16_t name;
};

struct lbl_proxies {
	struct lbl_intern *names;
	uint16_t *of_id; /* the name's number by proxy id; 0 = none yet */
	uint32_t ids_end; /* ids from here on have none */
	struct lbl_vip *vips;
	uint32_t n_vips;
};

/* Start without a named listener. `names` must outlive it. Returns 0 or -ENOMEM. */
int lbl_proxies_init(struct lbl_proxies *proxies, struct lbl_intern *names);
/* Legal on a zeroed struct. */
void lbl_proxies_destroy(struct lbl_proxies *proxies);

/* Name a proxy id. */
void lbl_proxies_set(struct lbl_proxies *proxies, uint16_t id, uint16_t name);
/* Name a VIP. Returns 0 or -ENOMEM. */
int lbl_proxies_add_vip(struct lbl_proxies *proxies, const uint8_t *addr, uint16_t port,
			uint16_t name);

/*
 * Return the key of an event's backend. A named VIP's key is one that no event of our own has, so
 * that no proxy id can be taken for a VIP.
 */
struct lbl_key lbl_proxies_key(const struct lbl_proxies *proxies,
			       const struct lbl_decoded_event *event);

/*
 * Return the number of a key's name. A proxy id without one is named "proxy-<id>". 0 if all names
 * are in use or memory is exhausted.
 */
uint16_t lbl_proxies_name(struct lbl_proxies *proxies, const struct lbl_key *key);

/*
 * Make the next key that a backend of this name may have; `named` has the name's number as
 * `proxy_ref`, and `at` is 0 at first. Returns false at the end.
 */
bool lbl_proxies_next(const struct lbl_proxies *proxies, const struct lbl_key *named, size_t *at,
		      struct lbl_key *ret);

/* Return a key with the name's number as `proxy_ref`, and the backend's true address. */
struct lbl_key lbl_key_named(const struct lbl_key *key, uint16_t name);

#endif
