/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The few fields of the kernel's structs that our tracing programs read. libbpf moves each access to
 * where the running kernel has the field. Include <linux/bpf.h> first.
 */
#ifndef LBL_KERNEL_H
#define LBL_KERNEL_H

#include <stdbool.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct in6_addr {
	__u8 bytes[16]; /* a union in the kernel; read as a whole */
};

struct sock_common {
	__be32 skc_daddr;
	__be16 skc_dport;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	struct in6_addr skc_v6_daddr;
};

struct sock {
	struct sock_common __sk_common;
	__u16 sk_protocol;
	__u8 sk_shutdown;
	int sk_err;
	__u32 sk_max_ack_backlog;
	void *sk_bpf_storage; /* NULL if no program has stored anything at this socket */
};

struct inet_sock {
	__be16 inet_sport;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u64 bytes_sent; /* payload, retransmits included */
	__u64 bytes_received; /* payload, and 1 for a FIN */
};

struct socket {
	struct sock *sk;
};

struct file;

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	int level;
	struct kernfs_node *kn;
	struct cgroup *ancestors[1]; /* since 6.1 */
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct task_struct {
	struct task_struct *group_leader;
	struct css_set *cgroups;
	char comm[16];
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	struct sock *sk;
	void *value;
};

#pragma clang attribute pop

/* The states of a TCP socket, as inet_sock_set_state tells them. */
enum {
	TCP_ESTABLISHED = BPF_TCP_ESTABLISHED,
	TCP_SYN_SENT = BPF_TCP_SYN_SENT,
	TCP_SYN_RECV = BPF_TCP_SYN_RECV,
	TCP_FIN_WAIT2 = BPF_TCP_FIN_WAIT2,
	TCP_TIME_WAIT = BPF_TCP_TIME_WAIT,
	TCP_CLOSE = BPF_TCP_CLOSE,
	TCP_LAST_ACK = BPF_TCP_LAST_ACK,
	TCP_LISTEN = BPF_TCP_LISTEN,
	TCP_CLOSING = BPF_TCP_CLOSING,
};

enum { AF_INET = 2, AF_INET6 = 10, IPPROTO_TCP = 6, RCV_SHUTDOWN = 1 };

#endif
