// SPDX-License-Identifier: MIT
/* Two key formats, in plain or per-CPU hash maps. */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/util.h"
#include "kernel/cpus.h"
#include "kernel/maps.h"
#include "source/conntrack.h"

struct lbl_conntrack {
	int refs;
	int fd;
	bool unified;
	size_t value_bytes; /* of one CPU's value, rounded up to 8 as the kernel copies it */
	size_t n_values;
	uint32_t max_entries;
};

enum { VALUE_BYTES_MAX = 4096 };

static bool is_per_cpu(uint32_t type)
{
	return type == BPF_MAP_TYPE_PERCPU_HASH || type == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

int lbl_conntrack_open(int fd, struct lbl_conntrack **ret)
{
	struct lbl_conntrack *conntrack;
	struct bpf_map_info info;
	bool unified;
	int err;

	err = lbl_map_info(fd, &info);
	if (err)
		return err;
	unified = info.key_size == sizeof(struct lbl_ct_key);
	if (info.type != BPF_MAP_TYPE_HASH && info.type != BPF_MAP_TYPE_LRU_HASH &&
	    !is_per_cpu(info.type))
		return -EINVAL;
	if (!unified && info.key_size != sizeof(struct lbl_ct_key4))
		return -EINVAL;
	if (info.value_size > VALUE_BYTES_MAX ||
	    info.value_size <
		    (unified ? sizeof(struct lbl_ct_value) : sizeof(struct lbl_ct_value4)))
		return -EINVAL;

	conntrack = calloc(1, sizeof(*conntrack));
	if (!conntrack)
		return -ENOMEM;
	conntrack->refs = 1;
	conntrack->unified = unified;
	conntrack->value_bytes = (info.value_size + 7) & ~7UL;
	conntrack->n_values = is_per_cpu(info.type) ? (size_t)lbl_cpus_most() : 1;
	conntrack->max_entries = info.max_entries;
	conntrack->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (conntrack->fd < 0) {
		err = -errno;
		free(conntrack);
		return err;
	}
	*ret = conntrack;
	return 0;
}

struct lbl_conntrack *lbl_conntrack_ref(struct lbl_conntrack *conntrack)
{
	if (conntrack)
		lbl_ref(&conntrack->refs);
	return conntrack;
}

void lbl_conntrack_free(struct lbl_conntrack *conntrack)
{
	if (!conntrack || !lbl_unref(&conntrack->refs))
		return;
	close(conntrack->fd);
	free(conntrack);
}

/* ---- keys: a connection's have IPv4 as ::ffff:a.b.c.d and ports in host order ---- */

union key {
	struct lbl_ct_key4 v4;
	struct lbl_ct_key unified;
};

static const uint8_t mapped_prefix[12] = { [10] = 0xff, [11] = 0xff };

static void to_unified(uint8_t *to, const uint8_t *addr)
{
	memcpy(to, addr, 16);
	if (lbl_is_ipv4(addr))
		memset(to, 0, sizeof(mapped_prefix));
}

static void from_unified(uint8_t *addr, const uint8_t *from)
{
	static const uint8_t zeros[12];

	memcpy(addr, from, 16);
	if (!memcmp(from, zeros, sizeof(zeros)))
		memcpy(addr, mapped_prefix, sizeof(mapped_prefix));
}

/* Returns false if the map cannot contain the connection: IPv6 in an IPv4 map. */
static bool make_key(const struct lbl_conntrack *conntrack, const struct lbl_connection *of,
		     union key *key)
{
	memset(key, 0, sizeof(*key));
	if (conntrack->unified) {
		to_unified(key->unified.src, of->client_addr);
		to_unified(key->unified.dst, of->backend_addr);
		key->unified.sport = htons(of->client_port);
		key->unified.dport = htons(of->backend_port);
		key->unified.protocol = of->protocol;
		return true;
	}
	memcpy(&key->v4.src, of->client_addr + 12, sizeof(key->v4.src));
	memcpy(&key->v4.dst, of->backend_addr + 12, sizeof(key->v4.dst));
	key->v4.sport = htons(of->client_port);
	key->v4.dport = htons(of->backend_port);
	key->v4.protocol = of->protocol;
	return lbl_is_ipv4(of->client_addr) && lbl_is_ipv4(of->backend_addr);
}

static void read_key(const struct lbl_conntrack *conntrack, const union key *key,
		     struct lbl_connection *ret)
{
	if (conntrack->unified) {
		from_unified(ret->client_addr, key->unified.src);
		from_unified(ret->backend_addr, key->unified.dst);
		ret->client_port = ntohs(key->unified.sport);
		ret->backend_port = ntohs(key->unified.dport);
		ret->protocol = key->unified.protocol;
		return;
	}
	memcpy(ret->client_addr, mapped_prefix, sizeof(mapped_prefix));
	memcpy(ret->client_addr + 12, &key->v4.src, sizeof(key->v4.src));
	memcpy(ret->backend_addr, mapped_prefix, sizeof(mapped_prefix));
	memcpy(ret->backend_addr + 12, &key->v4.dst, sizeof(key->v4.dst));
	ret->client_port = ntohs(key->v4.sport);
	ret->backend_port = ntohs(key->v4.dport);
	ret->protocol = key->v4.protocol;
}

/* ---- values ---- */

/* The six numbers are contiguous in both formats. */
struct numbers {
	uint64_t created_ns, last_seen_ns;
	uint64_t packets_fwd, packets_rev, bytes_fwd, bytes_rev;
};

_Static_assert(offsetof(struct lbl_ct_value, bytes_rev) -
			       offsetof(struct lbl_ct_value, created_ns) ==
		       offsetof(struct numbers, bytes_rev),
	       "lbl_ct_value has the numbers in this order");
_Static_assert(offsetof(struct lbl_ct_value4, bytes_rev) -
			       offsetof(struct lbl_ct_value4, created_ns) ==
		       offsetof(struct numbers, bytes_rev),
	       "lbl_ct_value4 has the numbers in this order");

/* Merge the value of one CPU; it is zero if the CPU never saw the connection. */
static void add_value(struct lbl_connection *ret, const uint8_t *value, size_t offset)
{
	struct numbers from;

	memcpy(&from, value + offset, sizeof(from));
	if (from.created_ns && (!ret->created_ns || from.created_ns < ret->created_ns))
		ret->created_ns = from.created_ns;
	if (from.last_seen_ns > ret->last_seen_ns)
		ret->last_seen_ns = from.last_seen_ns;
	ret->packets_fwd += from.packets_fwd;
	ret->packets_rev += from.packets_rev;
	ret->bytes_fwd += from.bytes_fwd;
	ret->bytes_rev += from.bytes_rev;
}

static int look_up(const struct lbl_conntrack *conntrack, const union key *key,
		   struct lbl_connection *ret)
{
	size_t offset = conntrack->unified ? offsetof(struct lbl_ct_value, created_ns)
					   : offsetof(struct lbl_ct_value4, created_ns);
	uint8_t *values;
	int err = 0;
	size_t i;

	values = calloc(conntrack->n_values, conntrack->value_bytes);
	if (!values)
		return -ENOMEM;
	if (bpf_map_lookup_elem(conntrack->fd, key, values)) {
		err = -errno;
		goto out;
	}
	ret->created_ns = 0;
	ret->last_seen_ns = 0;
	ret->packets_fwd = ret->packets_rev = ret->bytes_fwd = ret->bytes_rev = 0;
	for (i = 0; i < conntrack->n_values; i++)
		add_value(ret, values + i * conntrack->value_bytes, offset);
out:
	free(values);
	return err;
}

int lbl_conntrack_lookup(const struct lbl_conntrack *conntrack, struct lbl_connection *ret)
{
	union key key;

	return make_key(conntrack, ret, &key) ? look_up(conntrack, &key, ret) : -ENOENT;
}

int64_t lbl_conntrack_list(const struct lbl_conntrack *conntrack, struct lbl_connection **ret)
{
	struct lbl_connection *found = NULL;
	size_t n = 0, capacity = 0;
	union key key, *previous = NULL;
	uint32_t seen;

	/*
	 * A deleted key restarts the walk at the front, so limit the walk to the size of the map.
	 */
	for (seen = 0; seen < conntrack->max_entries; seen++) {
		if (bpf_map_get_next_key(conntrack->fd, previous, &key))
			break;
		previous = &key;
		if (n == capacity) {
			size_t larger = capacity ? 2 * capacity : 64;
			struct lbl_connection *grown = reallocarray(found, larger, sizeof(*found));

			if (!grown) {
				free(found);
				return -ENOMEM;
			}
			found = grown;
			capacity = larger;
		}
		memset(&found[n], 0, sizeof(found[n]));
		read_key(conntrack, &key, &found[n]);
		n += !look_up(conntrack, &key, &found[n]);
	}
	*ret = found;
	return (int64_t)n;
}

void lbl_connections_free(struct lbl_connection *connections)
{
	free(connections);
}

/* ---- births ---- */

/* Events of such formats lack the protocol, so try both. */
static uint64_t find_created_ns(void *ctx, const struct lbl_decoded_event *decoded)
{
	static const uint8_t protocols[] = { IPPROTO_TCP, IPPROTO_UDP };
	struct lbl_connection found = { .client_port = decoded->client_port,
					.backend_port = decoded->event.port };
	size_t i;

	memcpy(found.client_addr, decoded->client_addr, sizeof(found.client_addr));
	memcpy(found.backend_addr, decoded->event.addr, sizeof(found.backend_addr));
	for (i = 0; i < sizeof(protocols); i++) {
		found.protocol = protocols[i];
		if (!lbl_conntrack_lookup(ctx, &found))
			return found.created_ns;
	}
	return 0;
}

struct lbl_birth_source lbl_conntrack_births(struct lbl_conntrack *conntrack)
{
	return (struct lbl_birth_source){ find_created_ns, conntrack };
}
