// SPDX-License-Identifier: MIT
/* From an event to a histogram, and the accounting of every event that does not get there. */
#include <math.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include "event/decode.h"
#include "record/count.h"
#include "source/conntrack.h"

int lbl_shard_new(struct lbl_buckets *buckets, uint32_t capacity, struct lbl_intern *names,
		  struct lbl_shard **ret)
{
	struct lbl_shard *shard = calloc(1, sizeof(*shard));
	int err;

	if (!shard)
		return -ENOMEM;
	err = lbl_table_init(&shard->table, capacity, buckets->n_slots);
	if (err) {
		free(shard);
		return err;
	}
	shard->flows.seed = shard->table.seed;
	pthread_mutex_init(&shard->lock, NULL);
	lbl_ref(&buckets->refs);
	shard->buckets = buckets;
	shard->names = names;
	shard->limit = capacity;
	*ret = shard;
	return 0;
}

void lbl_shard_free(struct lbl_shard *shard)
{
	if (!shard)
		return;
	lbl_table_destroy(&shard->table);
	lbl_births_destroy(&shard->flows);
	free(shard->proxies);
	free(shard->vips);
	lbl_conntrack_free(shard->conntrack);
	lbl_buckets_free(shard->buckets);
	pthread_mutex_destroy(&shard->lock);
	free(shard);
}

/* ---- which backend ---- */

/* The name of a proxy id; one that nobody named is called by its number, and remembered. */
static int proxy_name(struct lbl_shard *shard, uint16_t proxy)
{
	struct lbl_proxy_name *larger;
	char text[16];
	int name;
	size_t i;

	if (shard->by_name)
		return proxy;
	for (i = 0; i < shard->n_proxies; i++) {
		if (shard->proxies[i].proxy == proxy)
			return shard->proxies[i].name;
	}
	name = lbl_intern_insert(shard->names, text,
				 (size_t)snprintf(text, sizeof(text), "proxy-%u", proxy));
	if (name < 0)
		return name;
	larger = reallocarray(shard->proxies, shard->n_proxies + 1, sizeof(*larger));
	if (!larger)
		return -ENOMEM;
	shard->proxies = larger;
	shard->proxies[shard->n_proxies++] = (struct lbl_proxy_name){ proxy, (uint16_t)name };
	return name;
}

uint32_t lbl_shard_backend(struct lbl_shard *shard, const struct lbl_key *key)
{
	uint32_t index = lbl_table_find(&shard->table, key);
	int name;

	if (likely(index))
		return index;
	if (shard->table.n > shard->limit)
		return 0;
	name = proxy_name(shard, key->proxy);
	return name < 0 ? 0 : lbl_table_insert(&shard->table, key, (uint16_t)name);
}

/* ---- recording ---- */

/* To the nearest ns. The caller has checked, but a buffer may change under our hands. */
static uint64_t to_ns(double seconds)
{
	uint64_t ns = (uint64_t)llrint(seconds * 1e9);

	return ns < LBL_OBSERVE_MAX ? ns : LBL_OBSERVE_MAX;
}

size_t lbl_shard_observe(struct lbl_shard *shard, uint32_t index, const double *seconds, size_t n)
{
	size_t observed = 0, i;
	lbl_u128 sum = 0;

	for (i = 0; i < n; i++) {
		uint64_t ns = to_ns(seconds[i]);

		if (unlikely(!lbl_count(shard, index, ns)))
			continue;
		sum += ns;
		observed++;
	}
	lbl_table_add_sum(&shard->table, index, sum);
	lbl_table_add_closed(&shard->table, index, LBL_REASON_UNKNOWN, observed);
	lbl_owner_add(&shard->stats.observed, observed);
	return observed;
}

static struct lbl_birth_key flow_key(const struct lbl_decoded_event *seen)
{
	struct lbl_birth_key key = { .client_port = seen->client_port,
				     .target_port = seen->event.port };

	memcpy(&key.client, seen->client_addr + 12, sizeof(key.client));
	memcpy(&key.target, seen->event.addr + 12, sizeof(key.target));
	return key;
}

/* When the map says that a connection was created; the event does not say its protocol. */
static uint64_t ask_conntrack(const struct lbl_conntrack *conntrack,
			      const struct lbl_decoded_event *seen)
{
	static const uint8_t protocols[] = { IPPROTO_TCP, IPPROTO_UDP };
	struct lbl_connection found = { .client_port = seen->client_port,
					.backend_port = seen->event.port };
	size_t i;

	memcpy(found.client_addr, seen->client_addr, sizeof(found.client_addr));
	memcpy(found.backend_addr, seen->event.addr, sizeof(found.backend_addr));
	for (i = 0; i < sizeof(protocols); i++) {
		found.protocol = protocols[i];
		if (!lbl_conntrack_lookup(conntrack, &found))
			return found.created_ns;
	}
	return 0;
}

/* In the order of trust: the event, its opened event, the conntrack map. 0 if none knows. */
static uint64_t created_of(struct lbl_shard *shard, const struct lbl_decoded_event *seen)
{
	struct lbl_birth_key key;
	uint64_t created_ns;

	if (seen->event.created_ns || !seen->has_client)
		return seen->event.created_ns;
	key = flow_key(seen);
	created_ns = lbl_births_take(&shard->flows, &key);
	if (!created_ns && shard->conntrack)
		created_ns = ask_conntrack(shard->conntrack, seen);
	return created_ns;
}

/* 64- and 72-byte events have no proxy id, but the address that their clients asked for. */
static uint16_t proxy_of(const struct lbl_shard *shard, const struct lbl_decoded_event *seen)
{
	size_t i;

	for (i = 0; i < shard->n_vips; i++) {
		if (shard->vips[i].port == seen->vip_port &&
		    !memcmp(shard->vips[i].addr, seen->vip_addr, sizeof(seen->vip_addr)))
			return shard->vips[i].proxy;
	}
	return 0;
}

static void record_opened(struct lbl_shard *shard, const struct lbl_decoded_event *seen,
			  uint32_t index)
{
	lbl_owner_add(&shard->stats.opened, 1);
	lbl_count_one(&shard->table, &shard->table.hot[index], LBL_HOT_OPENED);
	if (seen->has_client) {
		struct lbl_birth_key key = flow_key(seen);

		if (lbl_births_insert(&shard->flows, &key, seen->event.timestamp_ns))
			lbl_owner_add(&shard->stats.births_evicted, 1);
	}
}

static void record_closed(struct lbl_shard *shard, const struct lbl_decoded_event *seen,
			  uint32_t index)
{
	const struct lbl_event *event = &seen->event;
	struct lbl_tracker_stats *stats = &shard->stats;
	uint64_t created_ns = created_of(shard, seen);
	uint64_t lifetime = event->timestamp_ns - created_ns;

	lbl_owner_add(&stats->closed, 1);
	if (event->flags & LBL_FLAG_PROBE) {
		lbl_owner_add(&stats->ignored, 1);
		lbl_owner_add(&shard->table.cold[index].probes, 1);
		return;
	}
	lbl_table_add_closed(&shard->table, index, event->reason, 1);
	if (event->reason == LBL_REASON_CONNECT_FAILED)
		lbl_owner_add(&stats->ignored, 1);
	else if (!created_ns)
		lbl_owner_add(&stats->unmatched, 1);
	else if (created_ns > event->timestamp_ns || lifetime > LBL_LIFETIME_MAX ||
		 !lbl_count(shard, index, lifetime))
		lbl_owner_add(&stats->rejected, 1);
	else {
		lbl_table_add_sum(&shard->table, index, lifetime);
		lbl_owner_add(&stats->recorded, 1);
	}
}

/* Every kind of record; whatever lbl_shard_record_burst() knows too, it counts alike. */
void lbl_shard_record(struct lbl_shard *shard, const void *data, uint32_t len)
{
	struct lbl_decoded_event seen;
	uint32_t index;

	if (lbl_decode(data, len, &seen)) {
		lbl_owner_add(&shard->stats.malformed, 1);
		return;
	}
	if (seen.event.type == LBL_PERIODIC) {
		lbl_owner_add(&shard->stats.periodic, 1);
		return;
	}
	if (seen.has_client)
		seen.event.proxy_id = proxy_of(shard, &seen);
	index = lbl_shard_backend(shard, lbl_key_of(&seen.event));
	if (seen.event.backend_id)
		*lbl_table_by_id(&shard->table, seen.event.backend_id) = index;
	if (seen.event.type == LBL_OPENED)
		record_opened(shard, &seen, index);
	else
		record_closed(shard, &seen, index);
}
