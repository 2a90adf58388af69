// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Three load balancers that do nothing but use lblatency.bpf.h: for test_header.py. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "lblatency.bpf.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

static __always_inline void report(__u32 backend_id)
{
	struct lbl_event conn = {
		.protocol = 6,
		.backend_id = backend_id,
		.timestamp_ns = 3000,
		.created_ns = 1000,
		.connect_us = lbl_span_us(1999),
		.first_byte_us = LBL_SPAN_NONE,
		.closing_us = lbl_span_us(~0ULL),
		.proxy_id = 9,
	};

	lbl_set_ipv4(&conn, bpf_htonl(0x0a000001), bpf_htons(8080));
	lbl_conn_opened(&conn);
	conn.timestamp_ns = 0;
	lbl_conn_closed(&conn, LBL_REASON_FIN);
}

SEC("xdp")
int from_xdp(struct xdp_md *ctx)
{
	(void)ctx;
	report(1);
	return XDP_PASS;
}

SEC("tc")
int from_tc(struct __sk_buff *skb)
{
	(void)skb;
	report(2);
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int from_tp_btf(__u64 *ctx)
{
	(void)ctx;
	report(3);
	return 0;
}
