/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Reading and rewriting the headers of a packet, for nat_lb.bpf.c. Ethernet devices only. */
#ifndef NAT_LB_PACKET_H
#define NAT_LB_PACKET_H

#include "../nat_lb.h"

#define NAT_LONGEST_HEADERS (ETH_HLEN + 60 + sizeof(struct tcphdr))
#define NAT_F_IPV6 (1ULL << 7) /* BPF_F_IPV6, known since Linux 6.16 */

enum nat_tcp_flag {
	NAT_FIN = 1,
	NAT_SYN = 2,
	NAT_RST = 4,
	NAT_ACK = 16,
};

struct nat_packet {
	struct lbl_ct_key key; /* src the client, dst the other side, in either direction */
	__u32 l4; /* offset */
	__u32 payload;
	__u32 seq, ack; /* host order */
	__u8 flags; /* enum nat_tcp_flag */
	bool ipv4;
};

enum nat_parsed {
	NAT_OURS, /* TCP or UDP with its header at hand */
	NAT_OTHER, /* a protocol that is not balanced */
	NAT_IGNORED, /* malformed, or in a form that is not supported */
	NAT_SHORT, /* the header is not in the linear part, or not there at all */
};

static __always_inline int nat_parse_l4(struct nat_packet *p, void *l4, void *end, bool reply,
					__u32 l4_bytes)
{
	struct udphdr *udp = l4;
	struct tcphdr *tcp = l4;

	if ((void *)(udp + 1) > end)
		return NAT_SHORT;
	p->key.sport = reply ? udp->dest : udp->source;
	p->key.dport = reply ? udp->source : udp->dest;
	if (p->key.protocol == IPPROTO_UDP) {
		p->payload = l4_bytes - sizeof(*udp);
		return NAT_OURS;
	}
	if ((void *)(tcp + 1) > end)
		return NAT_SHORT;
	if (tcp->doff < 5 || tcp->doff * 4u > l4_bytes)
		return NAT_IGNORED;
	p->flags = ((__u8 *)tcp)[13];
	p->seq = bpf_ntohl(tcp->seq);
	p->ack = bpf_ntohl(tcp->ack_seq);
	p->payload = l4_bytes - tcp->doff * 4;
	return NAT_OURS;
}

static __always_inline int nat_parse_ip4(struct __sk_buff *skb, struct nat_packet *p, bool reply)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;
	__u32 header, total;

	if ((void *)(ip + 1) > end)
		return NAT_SHORT;
	if (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP)
		return NAT_OTHER;
	/* A first fragment too: a datagram of which only a part is translated serves nobody. */
	if (ip->version != 4 || ip->ihl < 5 || ip->frag_off & bpf_htons(0x3fff))
		return NAT_IGNORED;
	/* Not skb->len, which may count Ethernet's padding; but 0 in packets above 64 KiB. */
	header = ip->ihl * 4;
	total = ip->tot_len ? bpf_ntohs(ip->tot_len) : skb->len - ETH_HLEN;
	if (total < header + sizeof(struct udphdr) || total > skb->len - ETH_HLEN)
		return NAT_IGNORED;
	*(__be32 *)&p->key.src[12] = reply ? ip->daddr : ip->saddr;
	*(__be32 *)&p->key.dst[12] = reply ? ip->saddr : ip->daddr;
	p->key.protocol = ip->protocol;
	p->ipv4 = true;
	p->l4 = ETH_HLEN + header;
	return nat_parse_l4(p, (void *)ip + header, end, reply, total - header);
}

static __always_inline int nat_parse_ip6(struct __sk_buff *skb, struct nat_packet *p, bool reply)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + ETH_HLEN;
	__u32 total;

	if ((void *)(ip + 1) > end)
		return NAT_SHORT;
	if (ip->nexthdr == IPPROTO_ICMPV6 || ip->daddr.s6_addr[0] == 0xff) /* multicast */
		return NAT_OTHER;
	/* The rest are extension headers, fragments among them. */
	if (ip->version != 6 || (ip->nexthdr != IPPROTO_TCP && ip->nexthdr != IPPROTO_UDP))
		return NAT_IGNORED;
	total = ip->payload_len ? bpf_ntohs(ip->payload_len) : skb->len - ETH_HLEN - sizeof(*ip);
	if (total < sizeof(struct udphdr) || total > skb->len - ETH_HLEN - sizeof(*ip))
		return NAT_IGNORED;
	__builtin_memcpy(p->key.src, reply ? &ip->daddr : &ip->saddr, 16);
	__builtin_memcpy(p->key.dst, reply ? &ip->saddr : &ip->daddr, 16);
	p->key.protocol = ip->nexthdr;
	p->l4 = ETH_HLEN + sizeof(*ip);
	return nat_parse_l4(p, ip + 1, end, reply, total);
}

static __always_inline int nat_parse_linear(struct __sk_buff *skb, struct nat_packet *p, bool reply)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;

	__builtin_memset(p, 0, sizeof(*p));
	if ((void *)(eth + 1) > end)
		return NAT_SHORT;
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		return nat_parse_ip4(skb, p, reply);
	if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		return nat_parse_ip6(skb, p, reply);
	return NAT_OTHER;
}

/* `reply`: the packet goes from the other side to the client. Returns enum nat_parsed. */
static __always_inline int nat_parse(struct __sk_buff *skb, struct nat_packet *p, bool reply)
{
	__u32 want = skb->len < NAT_LONGEST_HEADERS ? skb->len : NAT_LONGEST_HEADERS;
	int parsed = nat_parse_linear(skb, p, reply);

	if (parsed != NAT_SHORT)
		return parsed;
	if (bpf_skb_pull_data(skb, want))
		return NAT_IGNORED;
	parsed = nat_parse_linear(skb, p, reply);
	return parsed == NAT_SHORT ? NAT_IGNORED : parsed;
}

static __always_inline void nat_fix_ip4_checksum(struct iphdr *ip, __be32 from, __be32 to)
{
	__u64 sum = (__u16)~ip->check;

	from = ~from; /* RFC 1624 */
	sum += (from & 0xffff) + (from >> 16) + (to & 0xffff) + (to >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ip->check = ~sum;
}

/* Put in the new address and port, and the IPv4 header's checksum. */
static __always_inline int nat_store(struct __sk_buff *skb, const struct nat_packet *p,
				     const struct nat_steer *to, bool reply)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	/* Kept by the compiler as a mask, from which the verifier knows the bound. */
	__u32 l4 = p->l4 & 0x7f;
	struct udphdr *ports = data + l4;
	struct ipv6hdr *ip6;
	struct iphdr *ip4;
	__be32 addr;

	if ((void *)(ports + 1) > end)
		return -1;
	if (p->ipv4) {
		ip4 = data + ETH_HLEN;
		if ((void *)(ip4 + 1) > end)
			return -1;
		addr = *(__be32 *)&to->addr[12];
		nat_fix_ip4_checksum(ip4, reply ? ip4->saddr : ip4->daddr, addr);
		*(reply ? &ip4->saddr : &ip4->daddr) = addr;
	} else {
		ip6 = data + ETH_HLEN;
		if ((void *)(ip6 + 1) > end)
			return -1;
		__builtin_memcpy(reply ? &ip6->saddr : &ip6->daddr, to->addr, 16);
	}
	*(reply ? &ports->source : &ports->dest) = to->port;
	return 0;
}

/* What bpf_csum_diff() gives for 16 bytes, in a quarter of the time. */
static __always_inline __u32 nat_sum_diff(const __u8 *from, const __u8 *to)
{
	__u64 sum = 0;
	int i;

	for (i = 0; i < 16; i += 4) {
		sum += (__u32) ~*(const __u32 *)&from[i];
		sum += *(const __u32 *)&to[i];
	}
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (sum & 0xffffffff) + (sum >> 32);
}

/*
 * Make the packet go to, or as a reply come from, `to`. The helpers know whether the checksum is
 * whole or still to be completed by the device, where only the pseudo header counts.
 */
static __always_inline int nat_rewrite(struct __sk_buff *skb, const struct nat_packet *p,
				       const struct nat_steer *to, bool reply)
{
	bool udp = p->key.protocol == IPPROTO_UDP;
	__u32 at = p->l4 + (udp ? __builtin_offsetof(struct udphdr, check)
				: __builtin_offsetof(struct tcphdr, check));
	__u64 flags = udp ? BPF_F_MARK_MANGLED_0 : 0;
	__u32 diff;
	int rc;

	if (nat_store(skb, p, to, reply))
		return -1;
	if (p->ipv4) {
		rc = bpf_l4_csum_replace(skb, at, *(__be32 *)&p->key.dst[12],
					 *(__be32 *)&to->addr[12], flags | BPF_F_PSEUDO_HDR | 4);
	} else {
		diff = nat_sum_diff(p->key.dst, to->addr);
		/*
		 * In IPv6 the changes of address and checksum cancel out in a sum that the device
		 * made of the whole packet; kernels that lack the flag get this wrong themselves.
		 */
		rc = bpf_l4_csum_replace(skb, at, 0, diff, flags | BPF_F_PSEUDO_HDR | NAT_F_IPV6);
		if (rc == -22) /* -EINVAL */
			rc = bpf_l4_csum_replace(skb, at, 0, diff, flags | BPF_F_PSEUDO_HDR);
	}
	if (!rc && p->key.dport != to->port)
		rc = bpf_l4_csum_replace(skb, at, p->key.dport, to->port, flags | 2);
	return rc;
}

#endif
