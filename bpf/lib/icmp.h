/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Parse ICMP's answer that a TCP segment did not reach its destination, for programs that only look
 * on. Include packet.h first.
 */
#ifndef LBL_ICMP_H
#define LBL_ICMP_H

#include "packet.h"

/* Types and a code; <linux/icmp.h> needs headers of a C library. */
enum {
	LBL_ICMP_UNREACHABLE = 3,
	LBL_ICMP_FRAGMENTATION_NEEDED = 4,
	LBL_ICMP6_UNREACHABLE = 1,
	LBL_ICMP_HEADER = 8, /* bytes */
};

/* The first bytes of an ICMP message, and of a TCP header: no more of that need be quoted. */
struct lbl_icmp {
	__u8 type, code;
};

struct lbl_quoted_tcp {
	__be16 source, dest;
	__be32 seq;
};

static __always_inline int lbl_parse_quoted_tcp(struct __sk_buff *skb, struct lbl_packet *p,
						__u32 at)
{
	struct lbl_quoted_tcp tcp;

	if (bpf_skb_load_bytes(skb, at, &tcp, sizeof(tcp)))
		return LBL_PARSED_IGNORED;
	p->key.sport = tcp.source;
	p->key.dport = tcp.dest;
	p->key.protocol = IPPROTO_TCP;
	p->seq = bpf_ntohl(tcp.seq);
	return LBL_PARSED;
}

/* Load the header of an IPv4 packet that is whole, or the first of its fragments. */
static __always_inline int lbl_load_ip4(struct __sk_buff *skb, __u32 at, struct iphdr *ip)
{
	if (bpf_skb_load_bytes(skb, at, ip, sizeof(*ip)))
		return LBL_PARSED_IGNORED;
	if (ip->version != 4 || ip->ihl < 5 || ip->frag_off & bpf_htons(0x1fff))
		return LBL_PARSED_IGNORED;
	return LBL_PARSED;
}

static __always_inline int lbl_parse_unreachable4(struct __sk_buff *skb, struct lbl_packet *p,
						  __u32 at)
{
	struct lbl_icmp icmp;
	struct iphdr ip;

	if (lbl_load_ip4(skb, at, &ip) || ip.protocol != IPPROTO_ICMP)
		return LBL_PARSED_OTHER;
	at += ip.ihl * 4;
	if (bpf_skb_load_bytes(skb, at, &icmp, sizeof(icmp)))
		return LBL_PARSED_IGNORED;
	if (icmp.type != LBL_ICMP_UNREACHABLE || icmp.code == LBL_ICMP_FRAGMENTATION_NEEDED)
		return LBL_PARSED_OTHER;
	at += LBL_ICMP_HEADER;
	if (lbl_load_ip4(skb, at, &ip) || ip.protocol != IPPROTO_TCP)
		return LBL_PARSED_OTHER;
	*(__be32 *)&p->key.src[12] = ip.saddr;
	*(__be32 *)&p->key.dst[12] = ip.daddr;
	p->ipv4 = true;
	return lbl_parse_quoted_tcp(skb, p, at + ip.ihl * 4);
}

static __always_inline int lbl_parse_unreachable6(struct __sk_buff *skb, struct lbl_packet *p,
						  __u32 at)
{
	struct lbl_icmp icmp;
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 6 ||
	    ip.nexthdr != IPPROTO_ICMPV6)
		return LBL_PARSED_OTHER;
	at += sizeof(ip);
	if (bpf_skb_load_bytes(skb, at, &icmp, sizeof(icmp)))
		return LBL_PARSED_IGNORED;
	if (icmp.type != LBL_ICMP6_UNREACHABLE)
		return LBL_PARSED_OTHER;
	at += LBL_ICMP_HEADER;
	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 6 ||
	    ip.nexthdr != IPPROTO_TCP)
		return LBL_PARSED_OTHER;
	__builtin_memcpy(p->key.src, &ip.saddr, 16);
	__builtin_memcpy(p->key.dst, &ip.daddr, 16);
	return lbl_parse_quoted_tcp(skb, p, at + sizeof(ip));
}

/*
 * Return LBL_PARSED if the packet, for which lbl_parse_any() returned LBL_PARSED_OTHER, says that a
 * TCP segment was undeliverable: then the key and `seq` are of that segment, and nothing else is set.
 */
static __always_inline int lbl_parse_unreachable(struct __sk_buff *skb, struct lbl_packet *p,
						 enum lbl_link link)
{
	__be16 protocol;
	__u32 l3;

	__builtin_memset(p, 0, sizeof(*p));
	if (lbl_skip_l2(skb, link, true, &l3, &protocol) != LBL_PARSED)
		return LBL_PARSED_OTHER;
	if (protocol == bpf_htons(ETH_P_IP))
		return lbl_parse_unreachable4(skb, p, l3);
	if (protocol == bpf_htons(ETH_P_IPV6))
		return lbl_parse_unreachable6(skb, p, l3);
	return LBL_PARSED_OTHER;
}

#endif
