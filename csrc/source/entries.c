// SPDX-License-Identifier: MIT
/* Two key formats, in plain or per-CPU hash maps. */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "lbl_abi.h"
#include "base/util.h"
#include "event/event.h"
#include "kernel/cpus.h"
#include "kernel/maps.h"
#include "source/entries.h"

enum { VALUE_BYTES_MAX = 4096 };

static bool is_per_cpu(uint32_t type)
{
	return type == BPF_MAP_TYPE_PERCPU_HASH || type == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

static bool is_conntrack(const struct bpf_map_info *info)
{
	if (info->type != BPF_MAP_TYPE_HASH && info->type != BPF_MAP_TYPE_LRU_HASH &&
	    !is_per_cpu(info->type))
		return false;
	if (info->value_size > VALUE_BYTES_MAX)
		return false;
	return (info->key_size == sizeof(struct lbl_ct_key) &&
		info->value_size >= sizeof(struct lbl_ct_value)) ||
	       (info->key_size == sizeof(struct lbl_ct_key4) &&
		info->value_size >= sizeof(struct lbl_ct_value4));
}

int lbl_entries_open(int fd, struct lbl_entries *ret)
{
	struct bpf_map_info info;
	int cpus = 1, err;

	err = lbl_map_info(fd, &info);
	if (err)
		return err;
	if (!is_conntrack(&info))
		return -EINVAL;
	if (is_per_cpu(info.type)) {
		cpus = lbl_cpus_most();
		if (cpus < 0)
			return cpus;
	}
	*ret = (struct lbl_entries){ .unified = info.key_size == sizeof(struct lbl_ct_key),
				     .per_cpu = is_per_cpu(info.type),
				     .key_bytes = info.key_size,
				     .value_bytes = info.value_size,
				     .max_entries = info.max_entries,
				     .n_values = (uint32_t)cpus };
	if (ret->per_cpu)
		ret->value_bytes = (info.value_size + 7) & ~7U;
	ret->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return ret->fd < 0 ? -errno : 0;
}

void lbl_entries_close(struct lbl_entries *entries)
{
	close(entries->fd);
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

static void from_ipv4(uint8_t *addr, uint32_t network_order)
{
	memcpy(addr, mapped_prefix, sizeof(mapped_prefix));
	memcpy(addr + 12, &network_order, sizeof(network_order));
}

/* Returns false if the map cannot contain the connection: IPv6 in an IPv4 map. */
static bool make_key(const struct lbl_entries *entries, const struct lbl_connection *of,
		     union key *key)
{
	memset(key, 0, sizeof(*key));
	if (entries->unified) {
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

static void read_key(const struct lbl_entries *entries, const uint8_t *key,
		     struct lbl_connection *ret)
{
	struct lbl_ct_key unified;
	struct lbl_ct_key4 v4;

	if (entries->unified) {
		memcpy(&unified, key, sizeof(unified));
		from_unified(ret->client_addr, unified.src);
		from_unified(ret->backend_addr, unified.dst);
		ret->client_port = ntohs(unified.sport);
		ret->backend_port = ntohs(unified.dport);
		ret->protocol = unified.protocol;
		return;
	}
	memcpy(&v4, key, sizeof(v4));
	from_ipv4(ret->client_addr, v4.src);
	from_ipv4(ret->backend_addr, v4.dst);
	ret->client_port = ntohs(v4.sport);
	ret->backend_port = ntohs(v4.dport);
	ret->protocol = v4.protocol;
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

static bool is_zero(const uint8_t *addr)
{
	static const uint8_t zeros[16];

	return !memcmp(addr, zeros, sizeof(zeros));
}

/* Both formats begin with the original destination. */
static void read_vip(const struct lbl_entries *entries, const uint8_t *value,
		     struct lbl_connection *ret)
{
	struct lbl_ct_value4 v4;
	struct lbl_ct_value unified;

	memset(ret->vip_addr, 0, sizeof(ret->vip_addr));
	if (entries->unified) {
		memcpy(&unified, value, sizeof(unified));
		if (!is_zero(unified.orig_addr))
			from_unified(ret->vip_addr, unified.orig_addr);
		ret->vip_port = ntohs(unified.orig_port);
		return;
	}
	memcpy(&v4, value, sizeof(v4));
	if (v4.orig_addr)
		from_ipv4(ret->vip_addr, v4.orig_addr);
	ret->vip_port = ntohs(v4.orig_port);
}

bool lbl_same_vip(const struct lbl_connection *a, const struct lbl_connection *b)
{
	if (a->vip_port && b->vip_port && a->vip_port != b->vip_port)
		return false;
	return is_zero(a->vip_addr) || is_zero(b->vip_addr) ||
	       !memcmp(a->vip_addr, b->vip_addr, sizeof(a->vip_addr));
}

/* Merge the value of one CPU. Returns false if it is zero: the CPU never saw the connection. */
static bool add_value(struct lbl_connection *ret, const uint8_t *value, size_t offset)
{
	static const struct numbers none;
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
	return memcmp(&from, &none, sizeof(none));
}

/* Combine the values of an entry, into a connection whose key is read already. */
static void read_values(const struct lbl_entries *entries, const uint8_t *values, size_t n,
			struct lbl_connection *ret)
{
	size_t offset = entries->unified ? offsetof(struct lbl_ct_value, created_ns)
					 : offsetof(struct lbl_ct_value4, created_ns);
	struct lbl_connection one = { 0 };
	bool same = true;
	size_t i, held = 0;

	memset(ret->vip_addr, 0, sizeof(ret->vip_addr));
	ret->vip_port = 0;
	ret->created_ns = ret->last_seen_ns = 0;
	ret->packets_fwd = ret->packets_rev = ret->bytes_fwd = ret->bytes_rev = 0;
	for (i = 0; i < n; i++, values += entries->value_bytes) {
		read_vip(entries, values, &one);
		same &= lbl_same_vip(ret, &one);
		if (is_zero(ret->vip_addr))
			memcpy(ret->vip_addr, one.vip_addr, sizeof(ret->vip_addr));
		if (!ret->vip_port)
			ret->vip_port = one.vip_port;
		held += add_value(ret, values, offset);
	}
	ret->is_split = held > 1;
	if (!same)
		ret->created_ns = 0;
}

int lbl_entries_lookup(const struct lbl_entries *entries, struct lbl_connection *ret)
{
	uint32_t n = READ_ONCE(&entries->n_values);
	union key key;
	uint8_t *values;
	int err = 0;

	if (!make_key(entries, ret, &key))
		return -ENOENT;
	values = calloc(n, entries->value_bytes);
	if (!values)
		return -ENOMEM;
	if (bpf_map_lookup_elem(entries->fd, &key, values))
		err = -errno;
	else
		read_values(entries, values, n, ret);
	free(values);
	return err;
}

/* ---- all entries ---- */

enum { BATCH_BYTES = 1 << 18, BATCH_LEAST = 64, MEASURES_MAX = 1000, BUSY_MAX = 1000 };

/*
 * In a batch, entries lie side by side, so the number of values must be exact. Returns 0, -ENOENT
 * if the map is empty, or another -errno.
 */
static int measure(struct lbl_entries *entries)
{
	int tries, n = -EAGAIN;
	union key key;

	if (!entries->per_cpu || __atomic_load_n(&entries->measured, __ATOMIC_ACQUIRE))
		return 0;
	for (tries = 0; tries < MEASURES_MAX; tries++) {
		if (bpf_map_get_next_key(entries->fd, NULL, &key))
			return -errno;
		n = lbl_cpus_of(entries->fd, &key, entries->value_bytes);
		if (n != -ENOENT) /* else the key was deleted meanwhile */
			break;
	}
	if (n < 0)
		return n == -ENOENT ? -EAGAIN : n;
	WRITE_ONCE(&entries->n_values, (uint32_t)n);
	__atomic_store_n(&entries->measured, true, __ATOMIC_RELEASE);
	return 0;
}

struct batch {
	uint32_t capacity;
	uint8_t *keys, *values;
	struct lbl_connection *found;
};

static void free_batch(struct batch *batch)
{
	free(batch->keys);
	free(batch->values);
	free(batch->found);
	*batch = (struct batch){ 0 };
}

static int make_batch(const struct lbl_entries *entries, uint32_t capacity, struct batch *ret)
{
	free_batch(ret);
	ret->capacity = capacity;
	ret->keys = calloc(capacity, entries->key_bytes);
	ret->values = calloc(capacity, (size_t)entries->value_bytes * entries->n_values);
	ret->found = calloc(capacity, sizeof(*ret->found));
	return ret->keys && ret->values && ret->found ? 0 : -ENOMEM;
}

static int visit_batch(const struct lbl_entries *entries, const struct batch *batch, uint32_t n,
		       lbl_entries_visit visit, void *ctx)
{
	size_t stride = (size_t)entries->value_bytes * entries->n_values;
	uint32_t i;

	for (i = 0; i < n; i++) {
		read_key(entries, batch->keys + (size_t)i * entries->key_bytes, &batch->found[i]);
		read_values(entries, batch->values + i * stride, entries->n_values,
			    &batch->found[i]);
	}
	return n ? visit(ctx, batch->found, n) : 0;
}

/*
 * The kernel copies bucket by bucket, each under its lock, and an entry never leaves its bucket. A
 * bucket that exceeds the batch's capacity is -ENOSPC, the end -ENOENT; -EBUSY is a bucket that an
 * interrupted program of this CPU has locked, in older kernels.
 */
static int walk(const struct lbl_entries *entries, struct batch *batch, lbl_entries_visit visit,
		void *ctx)
{
	uint32_t position = 0, *from = NULL, n;
	int err = 0, busy = 0, rc;

	while (!err) {
		n = batch->capacity;
		err = bpf_map_lookup_batch(entries->fd, from, &position, batch->keys, batch->values,
					   &n, NULL)
			      ? -errno
			      : 0;
		if (err == -ENOSPC) {
			if (batch->capacity > entries->max_entries)
				break;
			err = make_batch(entries, 2 * batch->capacity, batch);
			continue;
		}
		if (err && err != -ENOENT && (err != -EBUSY || ++busy > BUSY_MAX))
			break;
		rc = visit_batch(entries, batch, n, visit, ctx);
		if (rc)
			return rc;
		if (err == -EBUSY)
			err = 0;
		from = &position;
	}
	return err == -ENOENT ? 0 : err;
}

int lbl_entries_walk(struct lbl_entries *entries, lbl_entries_visit visit, void *ctx)
{
	struct batch batch = { 0 };
	size_t capacity;
	int err = measure(entries);

	if (err)
		return err == -ENOENT ? 0 : err;
	capacity = BATCH_BYTES / ((size_t)entries->value_bytes * entries->n_values);
	err = make_batch(entries, (uint32_t)(capacity < BATCH_LEAST ? BATCH_LEAST : capacity),
			 &batch);
	if (!err)
		err = walk(entries, &batch, visit, ctx);
	free_batch(&batch);
	return err;
}
