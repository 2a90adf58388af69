// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* The other object of a program that producers.bpf.c is one of: for test_header.py. */
#include <linux/bpf.h>
#include <linux/in6.h>
#include <bpf/bpf_helpers.h>

#include "lblatency.bpf.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

SEC("tc")
int from_linked(struct __sk_buff *skb)
{
	struct in6_addr addr = { .in6_u.u6_addr8 = { 0x20, 0x01, [15] = 7 } };
	struct lbl_event conn = { .protocol = 17, .flags = LBL_FLAG_PROBE, .backend_id = 4 };

	(void)skb;
	conn.created_ns = lbl_now();
	lbl_set_ipv4(&conn, 0xffffffff, 1); /* another backend was thought of first */
	lbl_set_ipv6(&conn, &addr, bpf_htons(8443));
	lbl_conn_closed(&conn, LBL_REASON_TIMEOUT);
	return 0;
}
