// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Follows the connections with backends by the packets that pass an interface, and changes nothing.
 * Both programs are attached to the interfaces that face the backends, where packets have the
 * backends' addresses, since the kernel translates them before egress and after ingress:
 *
 *	client ──► DNAT ──► TC egress: what comes here goes to a backend ──► backend
 *	client ◄── un-DNAT ◄── TC ingress: what comes here is a reply ◄───── backend
 *
 * That is but the first guess. Any packet may go either way (one interface for both sides, a bridge,
 * loopback), and one that is seen again has no further effect. A connection begins with a SYN, or a
 * datagram, to an address and port that a rule names. It is known by its tuple alone: the same
 * tuple in two networks is taken for one connection.
 *
 * The CPU that deletes an entry reports the end. It uses a copy made before, since the kernel reuses
 * a deleted element at once. (If another CPU meanwhile ends the connection and creates a new one
 * with the same tuple, the new connection is deleted.)
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lblatency.bpf.h"
#include "flows.h"
#include "lib/icmp.h"
#include "lib/networks.h"
#include "lib/packet.h"
#include "lib/tcp_track.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define FLOWS_LONGEST_RETRY_NS 3500000000ull

struct flows_conn {
	struct lbl_track track;
	__u64 created_ns, last_seen_ns;
	__u64 unreachable_ns; /* when ICMP said so last; 0 = never */
	__u16 proxy_id;
	bool ipv4;
	__u8 pad[5];
};

_Static_assert(sizeof(struct flows_conn) == FLOWS_CONN_BYTES, "flows_conn has no holes");

/*
 * Keyed by the tuple with the backend. No LRU: that would evict the connections that live longest.
 * The loader sets max_entries.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, struct lbl_ct_key);
	__type(value, struct flows_conn);
} flows_conns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lbl_flows_counters);
} flows_counters SEC(".maps");

/* Atomic although per CPU, as in lbl_emit(). */
#define FLOWS_COUNT(field)                                                                         \
	do {                                                                                       \
		__u32 slot_ = 0;                                                                   \
		struct lbl_flows_counters *counters_ =                                             \
			bpf_map_lookup_elem(&flows_counters, &slot_);                              \
		if (counters_)                                                                     \
			__sync_fetch_and_add(&counters_->field, 1);                                \
	} while (0)

/* Set `addr` to the address of one side of the tuple, as events and rules have it. */
static __always_inline void flows_address(__u8 addr[16], const __u8 side[16], bool ipv4)
{
	__builtin_memcpy(addr, side, 16);
	if (ipv4)
		addr[10] = addr[11] = 0xff;
}

static __always_inline void flows_describe(struct lbl_event *event, const struct lbl_ct_key *key,
					   const struct flows_conn *conn)
{
	__builtin_memset(event, 0, sizeof(*event));
	event->protocol = key->protocol;
	event->flags = conn->ipv4 ? LBL_FLAG_IPV4 : 0;
	event->created_ns = conn->created_ns;
	event->port = bpf_ntohs(key->dport);
	event->proxy_id = conn->proxy_id;
	flows_address(event->addr, key->dst, conn->ipv4);
}

/*
 * Delete a connection and report its end, unless another CPU already did: then return 0. `ended` is
 * as lbl_track_packet() returns it.
 */
static __noinline int flows_finish(struct lbl_ct_key *key, struct flows_conn *conn, __u32 ended,
				   __u64 timestamp_ns)
{
	struct lbl_event event;

	flows_describe(&event, key, conn);
	event.timestamp_ns = timestamp_ns;
	lbl_track_end(&conn->track, ended, &event);
	if (bpf_map_delete_elem(&flows_conns, key))
		return 0;
	lbl_conn_closed(&event, ended & 0xff);
	return 1;
}

/* Start a connection if a rule takes its backend. Returns its entry, or NULL. */
static __noinline struct flows_conn *flows_begin(struct lbl_packet *packet)
{
	struct lbl_ct_key *key = &packet->key;
	const struct lbl_port_range *range;
	struct flows_conn conn = {};
	struct lbl_event event;
	__u8 addr[16];
	long rc;

	flows_address(addr, key->dst, packet->ipv4);
	range = lbl_network_find(addr, packet->ipv4, bpf_ntohs(key->dport));
	if (!range)
		return NULL;
	conn.track.isn = packet->seq;
	conn.created_ns = conn.last_seen_ns = lbl_now();
	conn.proxy_id = range->proxy_id;
	conn.ipv4 = packet->ipv4;
	rc = bpf_map_update_elem(&flows_conns, key, &conn, BPF_NOEXIST);
	if (!rc) {
		flows_describe(&event, key, &conn);
		event.timestamp_ns = event.created_ns;
		lbl_conn_opened(&event);
	} else if (rc != -17) { /* -EEXIST: another CPU has just seen the same packet */
		FLOWS_COUNT(full);
		return NULL;
	}
	return bpf_map_lookup_elem(&flows_conns, key);
}

/* Count what ends a connection that is not tracked: older than the source, or ended already. */
static __noinline int flows_stray(struct lbl_packet *packet)
{
	const struct lbl_ct_key *key = &packet->key;
	__u8 addr[16];

	flows_address(addr, key->dst, packet->ipv4);
	if (!lbl_network_find(addr, packet->ipv4, bpf_ntohs(key->dport))) {
		flows_address(addr, key->src, packet->ipv4);
		if (!lbl_network_find(addr, packet->ipv4, bpf_ntohs(key->sport)))
			return 0;
	}
	FLOWS_COUNT(stray);
	return 0;
}

/* Find the packet's connection, and whether the packet is a reply; `*reply` has the first guess. */
static __always_inline struct flows_conn *flows_find(struct lbl_packet *packet, bool *reply)
{
	struct flows_conn *conn = bpf_map_lookup_elem(&flows_conns, &packet->key);

	if (conn)
		return conn;
	lbl_turn(packet);
	*reply = !*reply;
	return bpf_map_lookup_elem(&flows_conns, &packet->key);
}

/* Return the entry of the connection that a packet without one starts, or NULL. */
static __always_inline struct flows_conn *flows_start(struct lbl_packet *packet, bool *reply)
{
	const __u8 opening = LBL_TCP_SYN | LBL_TCP_ACK | LBL_TCP_RST | LBL_TCP_FIN;

	if (*reply) {
		lbl_turn(packet);
		*reply = false;
	}
	if (packet->key.protocol == IPPROTO_UDP || (packet->flags & opening) == LBL_TCP_SYN)
		return flows_begin(packet);
	if (packet->flags & (LBL_TCP_FIN | LBL_TCP_RST))
		flows_stray(packet);
	return NULL;
}

/*
 * Return whether the last word about a connect is that the backend is unreachable. It has not failed
 * yet: a client may try on (Linux does if the answer comes while it sends), and what answers it goes
 * on. So whoever forges ICMP ends nothing but what fails anyway.
 */
static __always_inline bool flows_is_unreachable(const struct flows_conn *conn)
{
	return conn->unreachable_ns && !(conn->track.state & LBL_TRACK_SYNACK) &&
	       (__s64)(conn->unreachable_ns - conn->last_seen_ns) >= 0;
}

/*
 * Return whether a client that tried on would have done so by `now_ns`. The time between two SYNs
 * doubles each time, or is constant; RFC 2988 began with 3 s, today it is 1 s.
 */
static __always_inline bool flows_has_stopped(const struct flows_conn *conn, __u64 now_ns)
{
	__u64 longest_ns = conn->unreachable_ns - conn->created_ns + FLOWS_LONGEST_RETRY_NS;

	return (__s64)(now_ns - conn->unreachable_ns) >= (__s64)longest_ns;
}

/* Note an answer to a SYN by ICMP. It quotes the SYN: whoever forges it must know its number. */
static __noinline int flows_answer(struct __sk_buff *skb, enum lbl_link link)
{
	struct lbl_packet packet;
	struct flows_conn *conn;

	if (lbl_parse_unreachable(skb, &packet, link) != LBL_PARSED)
		return 0;
	conn = bpf_map_lookup_elem(&flows_conns, &packet.key);
	if (conn && conn->track.isn == packet.seq)
		conn->unreachable_ns = lbl_now();
	return 0;
}

static __always_inline void flows_see(struct __sk_buff *skb, bool reply, enum lbl_link link)
{
	struct lbl_packet packet;
	struct flows_conn *conn;
	bool unreachable;
	__u32 ended;
	__u64 now;
	int rc;

	rc = lbl_parse_any(skb, &packet, reply, link);
	if (rc == LBL_PARSED_IGNORED)
		FLOWS_COUNT(ignored);
	if (rc == LBL_PARSED_OTHER)
		flows_answer(skb, link);
	if (rc != LBL_PARSED)
		return;
	conn = flows_find(&packet, &reply);
	if (conn && !reply && lbl_track_reused(&conn->track, &packet)) {
		/* The old connection's end is unknown; use its last packet. */
		ended = LBL_REASON_REUSED;
		if (lbl_track_half_open(&conn->track, packet.key.protocol))
			ended = LBL_REASON_CONNECT_FAILED;
		unreachable = flows_is_unreachable(conn);
		now = unreachable ? conn->unreachable_ns : conn->last_seen_ns;
		if (flows_finish(&packet.key, conn, ended, now)) {
			if (unreachable)
				FLOWS_COUNT(unreachable);
			else if (ended == LBL_REASON_CONNECT_FAILED)
				FLOWS_COUNT(given_up);
		}
		conn = NULL;
	}
	if (!conn)
		conn = flows_start(&packet, &reply);
	if (!conn)
		return;
	/*
	 * Before the SYN-ACK, a client resets only what comes late from an earlier connection of
	 * this tuple, and goes on trying.
	 */
	if (!reply && packet.flags & LBL_TCP_RST && !(conn->track.state & LBL_TRACK_SYNACK))
		return;
	now = lbl_track_now(&conn->track, &packet, reply);
	if ((__s64)(now - conn->last_seen_ns) > 0)
		conn->last_seen_ns = now;
	ended = lbl_track_packet(&conn->track, &packet, conn->created_ns, now, reply);
	if (!ended || !flows_finish(&packet.key, conn, ended, now))
		return;
	if (ended == LBL_REASON_CONNECT_FAILED)
		FLOWS_COUNT(refused);
}

/* TC_ACT_UNSPEC: the next program or filter decides. */

SEC("tc")
int lbl_flows_in(struct __sk_buff *skb)
{
	flows_see(skb, true, LBL_LINK_ETHERNET);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int lbl_flows_out(struct __sk_buff *skb)
{
	flows_see(skb, false, LBL_LINK_ETHERNET);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int lbl_flows_in_ip(struct __sk_buff *skb)
{
	flows_see(skb, true, LBL_LINK_IP);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int lbl_flows_out_ip(struct __sk_buff *skb)
{
	flows_see(skb, false, LBL_LINK_IP);
	return TC_ACT_UNSPEC;
}

static long flows_sweep_one(void *map, struct lbl_ct_key *key, struct flows_conn *conn,
			    struct flows_sweep *sweep)
{
	bool unreachable = flows_is_unreachable(conn);
	__u64 last_ns = unreachable ? conn->unreachable_ns : conn->last_seen_ns;
	__u32 ended =
		lbl_track_idle(&conn->track, key->protocol, last_ns, sweep->now_ns, &sweep->idle);

	(void)map;
	if (unreachable && flows_has_stopped(conn, sweep->now_ns))
		ended = LBL_REASON_CONNECT_FAILED;
	if (!ended)
		return 0;
	/* Many may end at once, and no packet is waiting for them to do so. */
	if (bpf_ringbuf_query(&lbl_events, BPF_RB_AVAIL_DATA) > sweep->ring_bytes / 2) {
		sweep->is_partial = 1;
		return 1;
	}
	if (!flows_finish(key, conn, ended, last_ns))
		return 0;
	if (unreachable)
		FLOWS_COUNT(unreachable);
	else if (ended == LBL_REASON_CONNECT_FAILED)
		FLOWS_COUNT(timed_out);
	return 0;
}

/* End the connections that have been silent for too long. User space runs this periodically. */
SEC("syscall")
int lbl_flows_sweep(struct flows_sweep *args)
{
	struct flows_sweep sweep = *args; /* the verifier allows a callback only stack memory */

	sweep.now_ns = lbl_now();
	sweep.is_partial = 0;
	bpf_for_each_map_elem(&flows_conns, flows_sweep_one, &sweep, 0);
	args->is_partial = sweep.is_partial;
	return 0;
}
