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
	uint32_t *of_id; /* 1 + the name's number by proxy id; 0 = none yet */
	uint32_t ids_end; /* ids from here on have none */
	struct lbl_vip *vips;
	size_t n_vips;
};

/* Start without a named listener. `names` must outlive it. Returns 0 or -ENOMEM. */
int lbl_proxies_init(struct lbl_proxies *proxies, struct lbl_intern *names);
/* Legal on a zeroed struct. */
void lbl_proxies_destroy(struct lbl_proxies *proxies);

/* Name a proxy id; 0 is the overflow backend's name. */
void lbl_proxies_set(struct lbl_proxies *proxies, uint16_t id, uint16_t name);

/* Reserve memory for `n` VIPs, add as many or fewer, and sort them. Returns 0 or -ENOMEM. */
int lbl_proxies_reserve_vips(struct lbl_proxies *proxies, size_t n);
void lbl_proxies_add_vip(struct lbl_proxies *proxies, const uint8_t *addr, uint16_t port,
			 uint16_t name);
void lbl_proxies_sort_vips(struct lbl_proxies *proxies);

/*
 * Return the key of an event's backend. A named VIP's key has a reserved address, which lbl_decode()
 * refuses, so that no event of our own can be taken for one of a VIP.
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

/* Return an event's key with the name's number as `proxy_ref`, and the backend's true address. */
struct lbl_key lbl_key_named(const struct lbl_key *key, uint16_t name);

#endif
