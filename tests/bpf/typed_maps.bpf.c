// SPDX-License-Identifier: MIT
/* Conntrack maps of various balancers, whose type information tells what is where, or does not. */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

struct flow {
	__be32 saddr, vip;
	__be16 sport, vport;
	__u8 proto;
};

typedef __u64 nanoseconds;

struct session {
	__u32 flags : 3, state : 5;
	volatile nanoseconds created_ns;
	nanoseconds last_seen_ns;
	struct {
		union {
			__be32 addr;
			__u8 bytes[4];
		};
		__be16 port;
	} backend;
	__u64 more;
	__u64 more_yet;
};

struct twins {
	struct flow a, b;
};

struct opaque {
	__u8 bytes[60];
};

#define MAP(name, key_type, value_type)                                                            \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_HASH);                                                   \
		__uint(max_entries, 100);                                                          \
		__type(key, key_type);                                                             \
		__type(value, value_type);                                                         \
	} name SEC(".maps")

MAP(sessions, struct flow, struct session);
MAP(unclear, struct twins, struct session);
MAP(lacking, struct flow, struct opaque);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 100);
	__uint(key_size, 8);
	__uint(value_size, 8);
} plain SEC(".maps");

SEC("socket")
int look(void *skb __attribute__((unused)))
{
	static const char zeros[64];

	return bpf_map_lookup_elem(&sessions, zeros) && bpf_map_lookup_elem(&unclear, zeros) &&
	       bpf_map_lookup_elem(&lacking, zeros) && bpf_map_lookup_elem(&plain, zeros);
}

char _license[] SEC("license") = "Dual MIT/GPL";
