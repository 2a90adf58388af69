// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * A small L4 load balancer that reports how long its connections live. Both programs are attached
 * to the interface that faces the clients:
 *
 *	client ──► TC ingress: VIP becomes the backend ──► the kernel routes it ──► backend
 *	client ◄── TC egress: the backend becomes the VIP ◄── routing ◄──────────── backend
 *
 * The programs keep the client's address, so the backends must route replies through this host.
 * They balance TCP and UDP over IPv4 and IPv6. They pass the following packets unchanged:
 *
 *	- fragments and IPv6 extension headers,
 *	- ICMP; "packet too big" is therefore not translated: keep the MTU of both sides equal,
 *	- TCP segments to the VIP that belong to no connection; the host's own stack answers them
 *	  with the RST that such a client needs, if the VIP is an address of the host.
 *
 * They drop the first packet of a connection that cannot be accepted; its client retransmits it.
 *
 * Each connection has two entries. nat_steer, keyed by the client's tuple, contains the backend;
 * lbl_conntrack, keyed by the backend's tuple, contains the state. The CPU that deletes the latter
 * reports the end. It uses a copy made before, since the kernel reuses a deleted element at once.
 * (If another CPU meanwhile ends the connection and creates a new one with the same tuple, the new
 * connection is deleted.)
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lblatency.bpf.h"
#include "lib/packet.h"
#include "lib/tcp_track.h"
#include "nat_lb.h"
#include "nat_lb_rewrite.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* An entry of lbl_conntrack. */
struct nat_conn {
	struct lbl_ct_value ct;
	struct lbl_track track;
	__u32 backend_id;
	__u16 proxy_id;
	bool ipv4;
	__u8 pad;
};

_Static_assert(sizeof(struct nat_conn) == 128, "nat_conn is two cache lines");

/* The loader sets max_entries of this map and of nat_steer. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct lbl_ct_key);
	__type(value, struct nat_conn);
} lbl_conntrack SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct lbl_ct_key);
	__type(value, struct nat_steer);
} nat_steer SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NAT_LISTENERS);
	__type(key, struct nat_endpoint);
	__type(value, struct nat_listener);
} nat_listeners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NAT_ALL_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} nat_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NAT_BACKENDS);
	__type(key, __u32);
	__type(value, struct nat_endpoint);
} nat_backends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nat_counters);
} nat_counters SEC(".maps");

#define NAT_COUNT(field)                                                                           \
	do {                                                                                       \
		__u32 slot_ = 0;                                                                   \
		struct nat_counters *counters_ = bpf_map_lookup_elem(&nat_counters, &slot_);       \
		if (counters_)                                                                     \
			__sync_fetch_and_add(&counters_->field, 1);                                \
	} while (0)

static __always_inline void nat_describe(struct lbl_event *event, const struct lbl_ct_key *key,
					 const struct nat_conn *conn)
{
	__builtin_memset(event, 0, sizeof(*event));
	event->protocol = key->protocol;
	event->backend_id = conn->backend_id;
	event->created_ns = conn->ct.created_ns;
	event->proxy_id = conn->proxy_id;
	if (conn->ipv4)
		lbl_set_ipv4(event, *(const __be32 *)&key->dst[12], key->dport);
	else
		lbl_set_ipv6(event, key->dst, key->dport);
}

/* Delete a connection from the maps and report its end, unless another CPU already did. */
static __noinline int nat_finish(struct lbl_ct_key *key, struct nat_conn *conn, __u32 ended,
				 __u64 timestamp_ns)
{
	struct lbl_ct_key steer = *key;
	struct lbl_event event;

	nat_describe(&event, key, conn);
	event.timestamp_ns = timestamp_ns;
	lbl_track_end(&conn->track, ended, &event);
	__builtin_memcpy(steer.dst, conn->ct.orig_addr, 16);
	steer.dport = conn->ct.orig_port;

	/*
	 * Delete in this order: the next packet detects a stale steering entry, but a stale
	 * conntrack entry would block its tuple until a sweep.
	 */
	bpf_map_delete_elem(&nat_steer, &steer);
	if (bpf_map_delete_elem(&lbl_conntrack, key))
		return 0;
	lbl_conn_closed(&event, ended & 0xff);
	return 1;
}

/* Choose a backend for a new connection, create its conntrack entry and report it. */
static __noinline int nat_place(struct lbl_packet *packet, struct nat_listener *listener,
				struct nat_steer *to)
{
	struct lbl_ct_key key = packet->key;
	struct nat_conn conn = {};
	struct nat_endpoint *backend;
	struct lbl_event event;
	__u32 i, slot, *id;
	long rc;

	__builtin_memcpy(conn.ct.orig_addr, key.dst, 16);
	conn.ct.orig_port = key.dport;
	conn.ct.created_ns = lbl_now();
	conn.ct.last_seen_ns = conn.ct.created_ns;
	conn.track.isn = packet->seq;
	conn.proxy_id = listener->proxy_id;
	conn.ipv4 = packet->ipv4;

	/*
	 * A client may use one port for two VIPs, which on the same backend is one tuple. Only then
	 * is the tuple already taken: try another slot.
	 */
	for (i = 0; i < 4; i++) {
		slot = listener->first_slot + bpf_get_prandom_u32() % NAT_SLOTS;
		id = bpf_map_lookup_elem(&nat_slots, &slot);
		backend = id && *id ? bpf_map_lookup_elem(&nat_backends, id) : NULL;
		if (!backend)
			break;
		__builtin_memcpy(key.dst, backend->addr, 16);
		__builtin_memcpy(conn.ct.nat_addr, backend->addr, 16);
		__builtin_memcpy(to->addr, backend->addr, 16);
		key.dport = conn.ct.nat_port = to->port = backend->port;
		conn.backend_id = to->backend_id = *id;
		rc = bpf_map_update_elem(&lbl_conntrack, &key, &conn, BPF_NOEXIST);
		if (!rc) {
			nat_describe(&event, &key, &conn);
			event.timestamp_ns = event.created_ns;
			lbl_conn_opened(&event);
			return 0;
		}
		if (rc != -17) { /* -EEXIST */
			NAT_COUNT(conntrack_full);
			return -1;
		}
	}
	NAT_COUNT(no_backend);
	return -1;
}

/*
 * Start a connection for a packet that belongs to none, and set `to` to its backend. Returns 0, or
 * the verdict for the packet.
 */
static __noinline int nat_begin(struct lbl_packet *packet, struct nat_steer *to, bool stale)
{
	struct lbl_ct_key *key = &packet->key;
	struct nat_endpoint vip = { .port = key->dport, .protocol = key->protocol };
	struct nat_listener *listener;
	struct nat_conn *conn;
	long rc;

	__builtin_memcpy(vip.addr, key->dst, 16);
	listener = bpf_map_lookup_elem(&nat_listeners, &vip);
	if (!listener)
		return TC_ACT_UNSPEC;
	if (key->protocol == IPPROTO_TCP &&
	    (packet->flags & (LBL_TCP_SYN | LBL_TCP_ACK | LBL_TCP_RST | LBL_TCP_FIN)) !=
		    LBL_TCP_SYN) {
		NAT_COUNT(stray);
		return TC_ACT_UNSPEC;
	}
	if (nat_place(packet, listener, to))
		return TC_ACT_SHOT;
	/* -EEXIST if another CPU handles a retransmit of this packet: drop this one. */
	rc = bpf_map_update_elem(&nat_steer, key, to, stale ? BPF_ANY : BPF_NOEXIST);
	if (!rc)
		return 0;
	if (rc != -17)
		NAT_COUNT(conntrack_full);
	__builtin_memcpy(key->dst, to->addr, 16);
	key->dport = to->port;
	conn = bpf_map_lookup_elem(&lbl_conntrack, key);
	if (conn)
		nat_finish(key, conn, LBL_REASON_CONNECT_FAILED, conn->ct.created_ns);
	return TC_ACT_SHOT;
}

/*
 * Count a packet of a connection, and update its state. Returns 0, or why the connection has ended,
 * with the time in `now`.
 */
static __always_inline __u32 nat_see(struct __sk_buff *skb, struct nat_conn *conn,
				     const struct lbl_packet *p, bool reply, __u64 *now)
{
	__u32 packets = skb->gso_segs ? skb->gso_segs : 1;

	*now = lbl_track_now(&conn->track, p, reply);
	if ((__s64)(*now - conn->ct.last_seen_ns) > 0)
		conn->ct.last_seen_ns = *now;
	/* Not atomic: one CPU handles a direction, except for a few packets when it moves. */
	if (reply) {
		conn->ct.packets_rev += packets;
		conn->ct.bytes_rev += skb->len - ETH_HLEN;
	} else {
		conn->ct.packets_fwd += packets;
		conn->ct.bytes_fwd += skb->len - ETH_HLEN;
	}
	return lbl_track_packet(&conn->track, p, conn->ct.created_ns, *now, reply);
}

SEC("tc")
int nat_lb_ingress(struct __sk_buff *skb)
{
	struct lbl_packet packet;
	struct nat_steer to, *steer;
	struct nat_conn *conn = NULL;
	struct lbl_ct_key key;
	__u32 ended;
	__u64 now;
	int rc;

	if (skb->pkt_type) /* not PACKET_HOST: promiscuous mode or multicast */
		return TC_ACT_UNSPEC;
	rc = lbl_parse(skb, &packet, false);
	if (rc == LBL_PARSED_IGNORED)
		NAT_COUNT(ignored);
	if (rc != LBL_PARSED)
		return TC_ACT_UNSPEC;

	key = packet.key;
	steer = bpf_map_lookup_elem(&nat_steer, &packet.key);
	if (steer) {
		to = *steer;
		__builtin_memcpy(key.dst, to.addr, 16);
		key.dport = to.port;
		conn = bpf_map_lookup_elem(&lbl_conntrack, &key);
	}
	if (conn && lbl_track_reused(&conn->track, &packet)) {
		/* The old connection's end is unknown; use its last packet. */
		nat_finish(&key, conn, LBL_REASON_REUSED, conn->ct.last_seen_ns);
		conn = NULL;
		steer = NULL;
	}
	if (!conn) {
		__builtin_memset(&to, 0, sizeof(to));
		rc = nat_begin(&packet, &to, !!steer);
		if (rc)
			return rc;
		__builtin_memcpy(key.dst, to.addr, 16);
		key.dport = to.port;
		conn = bpf_map_lookup_elem(&lbl_conntrack, &key);
		if (!conn)
			return TC_ACT_SHOT;
	}
	ended = nat_see(skb, conn, &packet, false, &now);
	if (ended)
		nat_finish(&key, conn, ended, now);
	return nat_rewrite(skb, &packet, &to, false) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

SEC("tc")
int nat_lb_egress(struct __sk_buff *skb)
{
	struct lbl_packet packet;
	struct nat_steer vip = {};
	struct nat_conn *conn;
	__u32 ended;
	__u64 now;
	int rc;

	rc = lbl_parse(skb, &packet, true);
	if (rc == LBL_PARSED_IGNORED)
		NAT_COUNT(ignored);
	if (rc != LBL_PARSED)
		return TC_ACT_UNSPEC;
	conn = bpf_map_lookup_elem(&lbl_conntrack, &packet.key);
	if (!conn)
		return TC_ACT_UNSPEC;
	__builtin_memcpy(vip.addr, conn->ct.orig_addr, 16);
	vip.port = conn->ct.orig_port;
	ended = nat_see(skb, conn, &packet, true, &now);
	if (ended)
		nat_finish(&packet.key, conn, ended, now);
	return nat_rewrite(skb, &packet, &vip, true) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

static long nat_sweep_one(void *map, struct lbl_ct_key *key, struct nat_conn *conn,
			  struct nat_sweep *sweep)
{
	__u64 last_seen_ns = conn->ct.last_seen_ns;
	__u32 ended = lbl_track_idle(&conn->track, key->protocol, last_seen_ns, sweep->now_ns,
				     &sweep->idle);

	(void)map;
	if (ended)
		sweep->closed += nat_finish(key, conn, ended, last_seen_ns);
	return 0;
}

/*
 * Delete a steering entry without a connection: left by the race in nat_finish(), or after another
 * program deleted the conntrack entry.
 */
static long nat_sweep_steer(void *map, struct lbl_ct_key *key, struct nat_steer *steer,
			    void *unused)
{
	struct lbl_ct_key ct_key = *key;

	(void)map;
	(void)unused;
	__builtin_memcpy(ct_key.dst, steer->addr, 16);
	ct_key.dport = steer->port;
	if (!bpf_map_lookup_elem(&lbl_conntrack, &ct_key))
		bpf_map_delete_elem(&nat_steer, key);
	return 0;
}

/* Close the connections that have exceeded their timeout. User space runs this periodically. */
SEC("syscall")
int nat_lb_sweep(struct nat_sweep *args)
{
	struct nat_sweep sweep = *args; /* the verifier allows a callback only stack memory */

	sweep.now_ns = lbl_now();
	sweep.closed = 0;
	bpf_for_each_map_elem(&lbl_conntrack, nat_sweep_one, &sweep, 0);
	bpf_for_each_map_elem(&nat_steer, nat_sweep_steer, &sweep, 0);
	args->closed = sweep.closed;
	return 0;
}
