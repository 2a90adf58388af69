/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Parse the headers of a packet: TCP and UDP over IPv4 and IPv6, on Ethernet devices only. Include
 * <linux/{if_ether,in,ip,ipv6,tcp,udp}.h>, <stdbool.h> and libbpf's helpers first.
 */
#ifndef LBL_PACKET_H
#define LBL_PACKET_H

#include "lbl_abi.h"

#define LBL_LONGEST_HEADERS (ETH_HLEN + 60 + sizeof(struct tcphdr))

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

static __always_inline int lbl_parse_ip4(struct __sk_buff *skb, struct lbl_packet *p, bool reply)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;
	__u32 header, total;

	if ((void *)(ip + 1) > end)
		return LBL_PARSED_SHORT;
	if (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP)
		return LBL_PARSED_OTHER;
	/* Ignore first fragments too: the later ones lack the ports, so none can be translated. */
	if (ip->version != 4 || ip->ihl < 5 || ip->frag_off & bpf_htons(0x3fff))
		return LBL_PARSED_IGNORED;
	/*
	 * Not skb->len, which includes Ethernet padding; but tot_len is 0 in packets above 64 KiB.
	 */
	header = ip->ihl * 4;
	total = ip->tot_len ? bpf_ntohs(ip->tot_len) : skb->len - ETH_HLEN;
	if (total < header + sizeof(struct udphdr) || total > skb->len - ETH_HLEN)
		return LBL_PARSED_IGNORED;
	*(__be32 *)&p->key.src[12] = reply ? ip->daddr : ip->saddr;
	*(__be32 *)&p->key.dst[12] = reply ? ip->saddr : ip->daddr;
	p->key.protocol = ip->protocol;
	p->ipv4 = true;
	p->l4 = ETH_HLEN + header;
	return lbl_parse_l4(p, (void *)ip + header, end, reply, total - header);
}

static __always_inline int lbl_parse_ip6(struct __sk_buff *skb, struct lbl_packet *p, bool reply)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + ETH_HLEN;
	__u32 total;

	if ((void *)(ip + 1) > end)
		return LBL_PARSED_SHORT;
	if (ip->nexthdr == IPPROTO_ICMPV6 || ip->daddr.s6_addr[0] == 0xff) /* multicast */
		return LBL_PARSED_OTHER;
	/* The others are extension headers, including fragments. */
	if (ip->version != 6 || (ip->nexthdr != IPPROTO_TCP && ip->nexthdr != IPPROTO_UDP))
		return LBL_PARSED_IGNORED;
	total = ip->payload_len ? bpf_ntohs(ip->payload_len) : skb->len - ETH_HLEN - sizeof(*ip);
	if (total < sizeof(struct udphdr) || total > skb->len - ETH_HLEN - sizeof(*ip))
		return LBL_PARSED_IGNORED;
	__builtin_memcpy(p->key.src, reply ? &ip->daddr : &ip->saddr, 16);
	__builtin_memcpy(p->key.dst, reply ? &ip->saddr : &ip->daddr, 16);
	p->key.protocol = ip->nexthdr;
	p->l4 = ETH_HLEN + sizeof(*ip);
	return lbl_parse_l4(p, ip + 1, end, reply, total);
}

static __always_inline int lbl_parse_linear(struct __sk_buff *skb, struct lbl_packet *p, bool reply)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;

	__builtin_memset(p, 0, sizeof(*p));
	if ((void *)(eth + 1) > end)
		return LBL_PARSED_SHORT;
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		return lbl_parse_ip4(skb, p, reply);
	if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		return lbl_parse_ip6(skb, p, reply);
	return LBL_PARSED_OTHER;
}

/* Parse a packet. `reply`: it goes to the client. Returns enum lbl_parsed, never SHORT. */
static __always_inline int lbl_parse(struct __sk_buff *skb, struct lbl_packet *p, bool reply)
{
	__u32 want = skb->len < LBL_LONGEST_HEADERS ? skb->len : LBL_LONGEST_HEADERS;
	int parsed = lbl_parse_linear(skb, p, reply);

	if (parsed != LBL_PARSED_SHORT)
		return parsed;
	if (bpf_skb_pull_data(skb, want))
		return LBL_PARSED_IGNORED;
	parsed = lbl_parse_linear(skb, p, reply);
	return parsed == LBL_PARSED_SHORT ? LBL_PARSED_IGNORED : parsed;
}

#endif
