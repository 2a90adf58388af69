// SPDX-License-Identifier: MIT
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

enum { KEY_BYTES_MAX = 512, VALUE_BYTES_MAX = 4096 }; /* of a key, the kernel allows no more */

static bool is_per_cpu(uint32_t type)
{
	return type == BPF_MAP_TYPE_PERCPU_HASH || type == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

static bool is_hash(const struct bpf_map_info *info)
{
	return (info->type == BPF_MAP_TYPE_HASH || info->type == BPF_MAP_TYPE_LRU_HASH ||
		is_per_cpu(info->type)) &&
	       info->key_size <= KEY_BYTES_MAX && info->value_size <= VALUE_BYTES_MAX;
}

int lbl_entries_open(int fd, const struct lbl_layout *layout, struct lbl_entries *ret)
{
	struct bpf_map_info info;
	int cpus = 1, err;

	err = lbl_map_info(fd, &info);
	if (err)
		return err;
	ret->documented = !layout;
	if (!layout)
		layout = lbl_layout_documented(info.key_size, info.value_size);
	if (!is_hash(&info) || !layout ||
	    lbl_layout_misfit(layout, info.key_size, info.value_size) != LBL_LAYOUT_FIELDS)
		return -EINVAL;
	if (is_per_cpu(info.type)) {
		cpus = lbl_cpus_most();
		if (cpus < 0)
			return cpus;
	}
	*ret = (struct lbl_entries){ .per_cpu = is_per_cpu(info.type),
				     .documented = ret->documented,
				     .layout = *layout,
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

static void to_unified(uint8_t *to, const uint8_t *addr)
{
	memcpy(to, addr, 16);
	if (lbl_is_ipv4(addr))
		memset(to, 0, 12);
}

/* Returns false if the map cannot contain the connection: IPv6 in an IPv4 map. */
static bool make_key(const struct lbl_entries *entries, const struct lbl_connection *of,
		     union key *key)
{
	memset(key, 0, sizeof(*key));
	if (entries->key_bytes == sizeof(key->unified)) {
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

/* ---- values ---- */

static bool is_zero(const uint8_t *addr)
{
	static const uint8_t zeros[16];

	return !memcmp(addr, zeros, sizeof(zeros));
}

bool lbl_same_vip(const struct lbl_connection *a, const struct lbl_connection *b)
{
	if (a->vip_port && b->vip_port && a->vip_port != b->vip_port)
		return false;
	return is_zero(a->vip_addr) || is_zero(b->vip_addr) ||
	       !memcmp(a->vip_addr, b->vip_addr, sizeof(a->vip_addr));
}

static void take_address(uint8_t *ret, const uint8_t *from)
{
	if (is_zero(ret))
		memcpy(ret, from, 16);
}

/* Merge the value of one CPU. Returns false if it is zero: the CPU never saw the connection. */
static bool add_value(struct lbl_connection *ret, const struct lbl_connection *one)
{
	take_address(ret->client_addr, one->client_addr);
	take_address(ret->backend_addr, one->backend_addr);
	take_address(ret->vip_addr, one->vip_addr);
	ret->client_port = ret->client_port ? ret->client_port : one->client_port;
	ret->backend_port = ret->backend_port ? ret->backend_port : one->backend_port;
	ret->vip_port = ret->vip_port ? ret->vip_port : one->vip_port;
	ret->protocol = ret->protocol ? ret->protocol : one->protocol;
	if (one->created_ns && (!ret->created_ns || one->created_ns < ret->created_ns))
		ret->created_ns = one->created_ns;
	if (one->last_seen_ns > ret->last_seen_ns)
		ret->last_seen_ns = one->last_seen_ns;
	ret->packets_fwd += one->packets_fwd;
	ret->packets_rev += one->packets_rev;
	ret->bytes_fwd += one->bytes_fwd;
	ret->bytes_rev += one->bytes_rev;
	return one->created_ns || one->last_seen_ns || one->packets_fwd || one->packets_rev ||
	       one->bytes_fwd || one->bytes_rev;
}

/* Read an entry, which has a value from each of `n` CPUs. */
static void read_entry(const struct lbl_entries *entries, const uint8_t *key, const uint8_t *values,
		       uint32_t n, struct lbl_connection *ret)
{
	uint32_t i, held = 0;
	bool same = true;

	memset(ret, 0, sizeof(*ret));
	lbl_layout_read_key(&entries->layout, key, ret);
	for (i = 0; i < n; i++, values += entries->value_bytes) {
		struct lbl_connection one = { 0 };

		lbl_layout_read_value(&entries->layout, values, &one);
		same &= lbl_same_vip(ret, &one);
		held += add_value(ret, &one);
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

	if (!entries->documented)
		return -EOPNOTSUPP;
	if (!make_key(entries, ret, &key))
		return -ENOENT;
	values = calloc(n, entries->value_bytes);
	if (!values)
		return -ENOMEM;
	if (bpf_map_lookup_elem(entries->fd, &key, values))
		err = -errno;
	else
		read_entry(entries, (const uint8_t *)&key, values, n, ret);
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
	uint8_t key[KEY_BYTES_MAX];

	if (!entries->per_cpu || __atomic_load_n(&entries->measured, __ATOMIC_ACQUIRE))
		return 0;
	for (tries = 0; tries < MEASURES_MAX; tries++) {
		if (bpf_map_get_next_key(entries->fd, NULL, key))
			return -errno;
		n = lbl_cpus_of(entries->fd, key, entries->value_bytes);
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

	for (i = 0; i < n; i++)
		read_entry(entries, batch->keys + (size_t)i * entries->key_bytes,
			   batch->values + i * stride, entries->n_values, &batch->found[i]);
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
