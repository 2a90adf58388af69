/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Parse the headers of a packet: TCP and UDP over IPv4 and IPv6. Include <linux/{if_ether,in,ip,ipv6,
 * tcp,udp}.h>, <stdbool.h> and libbpf's helpers first.
 *
 * lbl_parse() is for programs that change packets, and takes only those with nothing between the
 * Ethernet, IP and L4 headers. lbl_parse_any() is for programs that only look on: it also steps over
 * VLAN tags and IPv6 extension headers, and takes the first fragment of a datagram, and packets of
 * devices that have no Ethernet headers.
 */
#ifndef LBL_PACKET_H
#define LBL_PACKET_H

#include "lbl_abi.h"

enum {
	LBL_LONGEST_HEADERS = ETH_HLEN + 60 + sizeof(struct tcphdr),
	LBL_LONGEST_ANY = 192, /* with tags and extension headers, of which few are long */
	LBL_VLAN_TAGS = 2,
	LBL_EXTENSIONS = 4,
};

enum lbl_tcp_flag {
	LBL_TCP_FIN = 1,
	LBL_TCP_SYN = 2,
	LBL_TCP_RST = 4,
	LBL_TCP_ACK = 16,
};

struct lbl_packet {
	struct lbl_ct_key key; /* src is the client and dst the other side, in both directions */
	__u32 l4; /* offset of the TCP or UDP header */
	__u32 payload; /* bytes */
	__u32 seq, ack; /* host order */
	__u8 flags; /* enum lbl_tcp_flag */
	bool ipv4;
};

struct lbl_vlan_tag {
	__be16 id;
	__be16 protocol; /* of what follows */
};

/* What a device's packets begin with. */
enum lbl_link {
	LBL_LINK_ETHERNET,
	LBL_LINK_IP, /* tunnels */
};

enum lbl_parsed {
	LBL_PARSED, /* TCP or UDP, with a complete header */
	LBL_PARSED_OTHER, /* another protocol */
	LBL_PARSED_IGNORED, /* malformed or unsupported */
	LBL_PARSED_SHORT, /* the header is not in the linear part, or is missing */
};

static __always_inline int lbl_parse_l4(struct lbl_packet *p, void *l4, void *end, bool reply,
					__u32 l4_bytes)
{
	struct udphdr *udp = l4;
	struct tcphdr *tcp = l4;

	if ((void *)(udp + 1) > end)
		return LBL_PARSED_SHORT;
	p->key.sport = reply ? udp->dest : udp->source;
	p->key.dport = reply ? udp->source : udp->dest;
	if (p->key.protocol == IPPROTO_UDP) {
		p->payload = l4_bytes - sizeof(*udp);
		return LBL_PARSED;
	}
	if ((void *)(tcp + 1) > end)
		return LBL_PARSED_SHORT;
	if (tcp->doff < 5 || tcp->doff * 4u > l4_bytes)
		return LBL_PARSED_IGNORED;
	p->flags = ((__u8 *)tcp)[13];
	p->seq = bpf_ntohl(tcp->seq);
	p->ack = bpf_ntohl(tcp->ack_seq);
	p->payload = l4_bytes - tcp->doff * 4;
	return LBL_PARSED;
}

static __always_inline int lbl_parse_ip4(struct __sk_buff *skb, struct lbl_packet *p, __u32 l3,
					 bool reply, bool any)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + l3;
	__u32 header, total;
	__be16 fragment;

	if ((void *)(ip + 1) > end)
		return LBL_PARSED_SHORT;
	if (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP)
		return LBL_PARSED_OTHER;
	/*
	 * Ignore first fragments too: the later ones lack the ports, so none can be translated, and
	 * of a TCP segment in fragments the length is unknown.
	 */
	fragment = any && ip->protocol == IPPROTO_UDP ? bpf_htons(0x1fff) : bpf_htons(0x3fff);
	if (ip->version != 4 || ip->ihl < 5 || ip->frag_off & fragment)
		return LBL_PARSED_IGNORED;
	/*
	 * Not skb->len, which includes Ethernet padding; but tot_len is 0 in packets above 64 KiB.
	 */
	header = ip->ihl * 4;
	total = ip->tot_len ? bpf_ntohs(ip->tot_len) : skb->len - l3;
	if (total < header + sizeof(struct udphdr) || total > skb->len - l3)
		return LBL_PARSED_IGNORED;
	*(__be32 *)&p->key.src[12] = reply ? ip->daddr : ip->saddr;
	*(__be32 *)&p->key.dst[12] = reply ? ip->saddr : ip->daddr;
	p->key.protocol = ip->protocol;
	p->ipv4 = true;
	p->l4 = l3 + header;
	return lbl_parse_l4(p, (void *)ip + header, end, reply, total - header);
}

/*
 * Step over the extension headers from `*at` on, whose first is of kind `*next`. Returns enum
 * lbl_parsed; afterwards the two are of the L4 header.
 */
static __always_inline int lbl_skip_extensions(void **at, void *end, __u8 *next)
{
	struct ipv6_opt_hdr *header;
	bool fragment = false;
	__u16 bits;
	int i;

#pragma unroll
	for (i = 0; i < LBL_EXTENSIONS; i++) {
		if (*next == IPPROTO_TCP && !fragment)
			return LBL_PARSED;
		if (*next == IPPROTO_UDP)
			return LBL_PARSED;
		header = *at;
		if ((void *)header + 8 > end)
			return LBL_PARSED_SHORT;
		switch (*next) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
			*at += (header->hdrlen + 1) * 8;
			break;
		case IPPROTO_AH:
			*at += (header->hdrlen + 2) * 4;
			break;
		case IPPROTO_FRAGMENT:
			bits = bpf_ntohs(*(__be16 *)((void *)header + 2));
			if (bits & 0xfff8)
				return LBL_PARSED_IGNORED; /* not the first */
			fragment = bits & 1;
			*at += 8;
			break;
		case IPPROTO_TCP:
			return LBL_PARSED_IGNORED;
		default:
			return LBL_PARSED_OTHER;
		}
		*next = header->nexthdr;
	}
	return LBL_PARSED_IGNORED;
}

static __always_inline int lbl_parse_ip6(struct __sk_buff *skb, struct lbl_packet *p, __u32 l3,
					 bool reply, bool any)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + l3;
	void *l4 = ip + 1;
	__u32 total, between = 0;
	__u8 next;
	int rc;

	if ((void *)(ip + 1) > end)
		return LBL_PARSED_SHORT;
	if (ip->nexthdr == IPPROTO_ICMPV6 || ip->daddr.s6_addr[0] == 0xff) /* multicast */
		return LBL_PARSED_OTHER;
	next = ip->nexthdr;
	if (any && next != IPPROTO_TCP && next != IPPROTO_UDP) {
		rc = lbl_skip_extensions(&l4, end, &next);
		if (rc != LBL_PARSED)
			return rc;
		between = l4 - (void *)(ip + 1);
	}
	/* The others are extension headers, including fragments. */
	if (ip->version != 6 || (next != IPPROTO_TCP && next != IPPROTO_UDP))
		return LBL_PARSED_IGNORED;
	total = ip->payload_len ? bpf_ntohs(ip->payload_len) : skb->len - l3 - sizeof(*ip);
	if (total < between + sizeof(struct udphdr) || total > skb->len - l3 - sizeof(*ip))
		return LBL_PARSED_IGNORED;
	__builtin_memcpy(p->key.src, reply ? &ip->daddr : &ip->saddr, 16);
	__builtin_memcpy(p->key.dst, reply ? &ip->saddr : &ip->daddr, 16);
	p->key.protocol = next;
	p->l4 = l3 + sizeof(*ip) + between;
	return lbl_parse_l4(p, l4, end, reply, total - between);
}

/*
 * Step over the Ethernet header, if there is one, and VLAN tags. `*l3` is then the IP header's offset
 * and `*protocol` its kind. A tag that the device took off, or will put on, is not in the frame.
 */
static __always_inline int lbl_skip_l2(struct __sk_buff *skb, enum lbl_link link, bool any,
				       __u32 *l3, __be16 *protocol)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct lbl_vlan_tag *tag;
	int i;

	*l3 = 0;
	*protocol = skb->protocol;
	if (link == LBL_LINK_IP)
		return LBL_PARSED;
	if ((void *)(eth + 1) > end)
		return LBL_PARSED_SHORT;
	*l3 = ETH_HLEN;
	*protocol = eth->h_proto;
#pragma unroll
	for (i = 0; any && i < LBL_VLAN_TAGS; i++) {
		if (*protocol != bpf_htons(ETH_P_8021Q) && *protocol != bpf_htons(ETH_P_8021AD))
			return LBL_PARSED;
		tag = data + *l3;
		if ((void *)(tag + 1) > end)
			return LBL_PARSED_SHORT;
		*protocol = tag->protocol;
		*l3 += sizeof(*tag);
	}
	if (any && (*protocol == bpf_htons(ETH_P_8021Q) || *protocol == bpf_htons(ETH_P_8021AD)))
		return LBL_PARSED_IGNORED;
	return LBL_PARSED;
}

static __always_inline int lbl_parse_linear(struct __sk_buff *skb, struct lbl_packet *p, bool reply,
					    enum lbl_link link, bool any)
{
	__be16 protocol;
	__u32 l3;
	int rc;

	__builtin_memset(p, 0, sizeof(*p));
	rc = lbl_skip_l2(skb, link, any, &l3, &protocol);
	if (rc != LBL_PARSED)
		return rc;
	if (protocol == bpf_htons(ETH_P_IP))
		return lbl_parse_ip4(skb, p, l3, reply, any);
	if (protocol == bpf_htons(ETH_P_IPV6))
		return lbl_parse_ip6(skb, p, l3, reply, any);
	return LBL_PARSED_OTHER;
}

static __always_inline int lbl_parse_pulled(struct __sk_buff *skb, struct lbl_packet *p, bool reply,
					    enum lbl_link link, bool any)
{
	__u32 longest = any ? LBL_LONGEST_ANY : LBL_LONGEST_HEADERS;
	__u32 want = skb->len < longest ? skb->len : longest;
	int parsed = lbl_parse_linear(skb, p, reply, link, any);

	if (parsed != LBL_PARSED_SHORT)
		return parsed;
	if (bpf_skb_pull_data(skb, want))
		return LBL_PARSED_IGNORED;
	parsed = lbl_parse_linear(skb, p, reply, link, any);
	return parsed == LBL_PARSED_SHORT ? LBL_PARSED_IGNORED : parsed;
}

/* Parse a packet. `reply`: it goes to the client. Returns enum lbl_parsed, never SHORT. */
static __always_inline int lbl_parse(struct __sk_buff *skb, struct lbl_packet *p, bool reply)
{
	return lbl_parse_pulled(skb, p, reply, LBL_LINK_ETHERNET, false);
}

/* Likewise, with whatever there is between the headers. */
static __always_inline int lbl_parse_any(struct __sk_buff *skb, struct lbl_packet *p, bool reply,
					 enum lbl_link link)
{
	return lbl_parse_pulled(skb, p, reply, link, true);
}

/* Exchange client and other side: the packet goes the other way. */
static __always_inline void lbl_turn(struct lbl_packet *p)
{
	struct lbl_ct_key was = p->key;

	__builtin_memcpy(p->key.src, was.dst, 16);
	__builtin_memcpy(p->key.dst, was.src, 16);
	p->key.sport = was.dport;
	p->key.dport = was.sport;
}

#endif
