// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Reports the connections that proxies of this host open to their backends, in all network
 * namespaces. The proxies need no change:
 *
 *	connect() ── SYN_SENT ── ESTABLISHED ── first payload ── first FIN or RST ── CLOSE
 *	   created        connect time       first byte               closing         end
 *
 * What is known of a connection is stored at its socket, so nothing limits their number, none is
 * evicted, and other sockets cost a look at one pointer. The rules are applied at SYN_SENT, which
 * always runs in the process that called connect(); all later states may be set by anybody.
 *
 * The kernel skips a program that interrupts itself. An interrupt that comes while on_state runs,
 * and ends a connection, is therefore seen by on_state_again only. Each of both does what the other
 * has not done. Now and then (seen on Linux 6.18, on a busy machine) neither of them sees an end, and
 * the kernel counts no miss. What began, has not ended, and is at no socket tells how many they were.
 *
 * A socket that enters TIME_WAIT is closed at once, and one whose process has closed it is closed
 * when its FIN is acknowledged. So the lifetime of a connection that the proxy ends is not longer
 * for what the backend does later.
 */
#include <linux/bpf.h>
#include <linux/errno.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "lblatency.bpf.h"
#include "lib/kernel.h"
#include "lib/networks.h"
#include "sockets.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* A connection, stored at its socket. */
struct birth {
	struct lbl_event conn; /* created_ns is 0 if it is older than the source */
	__u64 closing_ns; /* of the first FIN or RST; 0 before */
	bool is_open;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct birth);
} births SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lbl_sockets_filter);
} filter SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LBL_SOCKETS_COMMS);
	__type(key, struct lbl_sockets_comm);
	__type(value, struct lbl_sockets_proxy);
} comms SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LBL_SOCKETS_CGROUPS);
	__type(key, __u64); /* a cgroup's id */
	__type(value, struct lbl_sockets_proxy);
} cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LBL_SOCKETS_BACKENDS);
	__type(key, struct lbl_sockets_backend);
	__type(value, __u32); /* id */
} backends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} last_id SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LBL_SOCKETS_BACKENDS + 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct lbl_sockets_row);
} rows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lbl_sockets_counters);
} counters SEC(".maps");

static const __u32 only = 0;

/* Atomic although per CPU, as in lbl_emit(). */
#define COUNT(field)                                                                               \
	do {                                                                                       \
		struct lbl_sockets_counters *own = bpf_map_lookup_elem(&counters, &only);          \
                                                                                                   \
		if (own)                                                                           \
			__sync_fetch_and_add(&own->field, 1);                                      \
	} while (0)

/* Likewise, of the backend with this id. */
#define COUNT_ROW(id, field)                                                                       \
	do {                                                                                       \
		__u32 at = id;                                                                     \
		struct lbl_sockets_row *row = bpf_map_lookup_elem(&rows, &at);                     \
                                                                                                   \
		if (row)                                                                           \
			__sync_fetch_and_add(&row->field, 1);                                      \
	} while (0)

/* ---- rules ---- */

/* Find the rule of the nearest cgroup that has one, from the task's own upwards. */
static __always_inline struct lbl_sockets_proxy *proxy_of_cgroup(struct task_struct *task)
{
	struct cgroup *cgroup = task->cgroups->dfl_cgrp, *ancestor;
	struct lbl_sockets_proxy *proxy;
	int i, level = cgroup->level;
	__u64 id;

	if (!bpf_core_field_exists(cgroup->ancestors))
		return NULL;
	for (i = 0; i < LBL_SOCKETS_LEVELS; i++, level--) {
		if (level < 0 ||
		    bpf_core_read(&ancestor, sizeof(ancestor), &cgroup->ancestors[level]))
			break;
		id = BPF_CORE_READ(ancestor, kn, id);
		proxy = bpf_map_lookup_elem(&cgroups, &id);
		if (proxy)
			return proxy;
	}
	return NULL;
}

/* Return whether a rule takes connections of this task, and set the proxy's id. */
static __always_inline bool takes_task(const struct lbl_sockets_filter *rules,
				       struct task_struct *task, __u16 *proxy_id)
{
	struct lbl_sockets_proxy *proxy = NULL;
	struct lbl_sockets_comm comm = {};

	if (!rules->has_comms && !rules->has_cgroups)
		return true;
	if (rules->has_comms) {
		BPF_CORE_READ_STR_INTO(&comm.name, task, group_leader, comm);
		proxy = bpf_map_lookup_elem(&comms, &comm);
	}
	if (!proxy && rules->has_cgroups)
		proxy = proxy_of_cgroup(task);
	if (!proxy)
		return false;
	*proxy_id = proxy->id;
	return true;
}

/* Return whether a rule takes connections to this backend, and set the proxy's id. */
static __always_inline bool takes_backend(const struct lbl_sockets_filter *rules,
					  const struct lbl_event *conn, __u16 *proxy_id)
{
	const struct lbl_port_range *range;

	if (!rules->has_networks)
		return true;
	range = lbl_network_find(conn->addr, conn->flags & LBL_FLAG_IPV4, conn->port);
	if (!range)
		return false;
	if (range->proxy_id) /* else the process's rule tells it */
		*proxy_id = range->proxy_id;
	return true;
}

static __always_inline bool is_mapped(const __u32 *addr)
{
	return !addr[0] && !addr[1] && addr[2] == bpf_htonl(0xffff);
}

/* Set the backend to the socket's destination. Returns false if it is no TCP socket. */
static __always_inline bool set_backend(struct lbl_event *conn, const struct sock *sk)
{
	__be16 port = sk->__sk_common.skc_dport;
	__u32 addr[4];

	if (sk->sk_protocol != IPPROTO_TCP)
		return false;
	if (sk->__sk_common.skc_family == AF_INET) {
		lbl_set_ipv4(conn, sk->__sk_common.skc_daddr, port);
		return true;
	}
	if (sk->__sk_common.skc_family != AF_INET6)
		return false;
	bpf_core_read(addr, sizeof(addr), &sk->__sk_common.skc_v6_daddr);
	if (is_mapped(addr))
		lbl_set_ipv4(conn, addr[3], port);
	else
		lbl_set_ipv6(conn, addr, port);
	return true;
}

/* Return whether the rules take this task's connection, and set proxy and backend in `conn`. */
static __always_inline bool takes(struct lbl_event *conn, const struct sock *sk,
				  struct task_struct *task)
{
	struct lbl_sockets_filter *rules = bpf_map_lookup_elem(&filter, &only);
	__u16 proxy_id = 0;

	if (!rules || !takes_task(rules, task, &proxy_id) || !set_backend(conn, sk) ||
	    !takes_backend(rules, conn, &proxy_id))
		return false;
	conn->proxy_id = proxy_id;
	return true;
}

/* ---- a connection ---- */

/* Return the backend's id; a new backend gets the next one. 0 if there are too many. */
static __always_inline __u32 id_of(const struct lbl_event *conn)
{
	struct lbl_sockets_backend key;
	struct lbl_sockets_row *row;
	__u32 *known, *last, id;

	__builtin_memcpy(&key, &conn->port, sizeof(key));
	known = bpf_map_lookup_elem(&backends, &key);
	if (known)
		return *known;
	last = bpf_map_lookup_elem(&last_id, &only);
	if (!last || *last >= LBL_SOCKETS_BACKENDS)
		return 0;
	id = __sync_fetch_and_add(last, 1) + 1;
	row = bpf_map_lookup_elem(&rows, &id);
	if (!row) /* several CPUs were here at once */
		return 0;
	row->backend = key; /* before anybody else knows the id */
	if (!bpf_map_update_elem(&backends, &key, &id, BPF_NOEXIST))
		return id;
	known = bpf_map_lookup_elem(&backends, &key); /* another CPU was faster */
	return known ? *known : 0;
}

static __always_inline struct birth *birth_of(const struct sock *sk)
{
	if (!sk->sk_bpf_storage)
		return NULL;
	return bpf_sk_storage_get(&births, (void *)sk, NULL, 0);
}

/* Report an end of which neither the time nor the reason is known. */
static __always_inline int end_unknown(struct lbl_event *conn)
{
	conn->created_ns = conn->timestamp_ns = 0;
	return lbl_conn_closed(conn, LBL_REASON_UNKNOWN);
}

/* Remember a connection and report that it opened. */
static __always_inline void begin(const struct sock *sk, struct lbl_event *conn)
{
	struct birth *birth;

	birth = bpf_sk_storage_get(&births, (void *)sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!birth) {
		COUNT(births_full);
		return;
	}
	if (birth->is_open) {
		COUNT(overwritten);
		COUNT_ROW(birth->conn.backend_id, ended);
		end_unknown(&birth->conn);
	}
	conn->protocol = IPPROTO_TCP;
	conn->backend_id = id_of(conn);
	lbl_conn_opened(conn);
	birth->conn = *conn;
	birth->closing_ns = 0;
	birth->is_open = true;
	COUNT_ROW(conn->backend_id, begun);
	if (conn->created_ns)
		birth->conn.connect_us = birth->conn.first_byte_us = LBL_SPAN_NONE;
}

/* Note the first payload, if it has come. */
static __always_inline void note_first_byte(struct birth *birth, const struct sock *sk)
{
	struct tcp_sock *tcp;

	if (birth->conn.first_byte_us != LBL_SPAN_NONE)
		return;
	tcp = bpf_skc_to_tcp_sock((void *)sk);
	/* A FIN, which shuts the receiving side, counts as a byte. */
	if (tcp && tcp->bytes_received > !!(sk->sk_shutdown & RCV_SHUTDOWN))
		birth->conn.first_byte_us = lbl_span_us(lbl_now() - birth->conn.created_ns);
}

static __always_inline void count_failed(const struct sock *sk)
{
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock((void *)sk);

	switch (sk->sk_err) {
	case 0:
		if (tcp && !tcp->inet_conn.icsk_inet.inet_sport)
			COUNT(no_port);
		else
			COUNT(given_up);
		break;
	case ECONNREFUSED:
		COUNT(refused);
		break;
	case ETIMEDOUT:
		COUNT(timed_out);
		break;
	case EHOSTUNREACH:
	case ENETUNREACH:
		COUNT(unreachable);
		break;
	default:
		COUNT(other);
	}
}

static __always_inline enum lbl_reason reason_of(const struct sock *sk, int old_state)
{
	switch (sk->sk_err) {
	case 0:
		break;
	case ECONNRESET:
	case ECONNABORTED:
	case EPIPE:
		return LBL_REASON_RST;
	default: /* a timeout, or what ICMP said before it */
		return LBL_REASON_TIMEOUT;
	}
	/* Any other state is left for CLOSE by our own RST. */
	return old_state == TCP_FIN_WAIT2 || old_state == TCP_LAST_ACK ||
			       old_state == TCP_CLOSING || old_state == TCP_TIME_WAIT
		       ? LBL_REASON_FIN
		       : LBL_REASON_RST;
}

/* Return whether it looks like a health check: no payload either way, then our RST. */
static __always_inline bool is_probe(const struct sock *sk, int old_state)
{
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock((void *)sk);

	return tcp && old_state == TCP_ESTABLISHED && !sk->sk_err && !tcp->bytes_received &&
	       !tcp->bytes_sent;
}

static __always_inline void end(struct birth *birth, const struct sock *sk, int old_state,
				__u64 now)
{
	struct lbl_event *conn = &birth->conn;

	COUNT_ROW(conn->backend_id, ended); /* first: see lbl_sockets_mend() */
	birth->is_open = false;
	conn->timestamp_ns = now;
	if (old_state == TCP_SYN_SENT || old_state == TCP_SYN_RECV) {
		count_failed(sk);
		lbl_conn_closed(conn, LBL_REASON_CONNECT_FAILED);
		return;
	}
	note_first_byte(birth, sk);
	conn->closing_us = lbl_span_us(now - birth->closing_ns);
	if (is_probe(sk, old_state))
		conn->flags |= LBL_FLAG_PROBE;
	lbl_conn_closed(conn, reason_of(sk, old_state));
}

/* Follow the connection into its next state; again has no effect. Returns whether it had one. */
static __always_inline bool follow(const struct sock *sk, int old_state, int new_state)
{
	struct birth *birth = birth_of(sk);
	__u64 now;

	if (!birth || !birth->is_open || new_state == TCP_SYN_RECV)
		return false;
	now = lbl_now();
	if (new_state == TCP_ESTABLISHED) {
		if (birth->conn.connect_us != LBL_SPAN_NONE)
			return false;
		birth->conn.connect_us = lbl_span_us(now - birth->conn.created_ns);
		return true;
	}
	if (!birth->closing_ns)
		birth->closing_ns = now;
	if (new_state == TCP_CLOSE)
		end(birth, sk, old_state, now);
	return true;
}

/* ---- hooks ---- */

#pragma clang diagnostic ignored "-Wunused-parameter" /* the context that BPF_PROG unpacks */

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state, const struct sock *sk, int old_state, int new_state)
{
	struct lbl_event conn = {};

	if (new_state != TCP_SYN_SENT) {
		follow(sk, old_state, new_state);
		return 0;
	}
	if (!takes(&conn, sk, bpf_get_current_task_btf()))
		return 0;
	conn.created_ns = conn.timestamp_ns = lbl_now();
	begin(sk, &conn);
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state_again, const struct sock *sk, int old_state, int new_state)
{
	if (new_state == TCP_ESTABLISHED || new_state == TCP_CLOSE)
		if (follow(sk, old_state, new_state))
			COUNT(caught);
	return 0;
}

/* One of these two is loaded: the first since 6.3, else the second, when the process reads. */

SEC("tp_btf/sk_data_ready")
int BPF_PROG(on_data, const struct sock *sk)
{
	struct birth *birth = birth_of(sk);

	if (birth)
		note_first_byte(birth, sk);
	return 0;
}

SEC("tp_btf/tcp_rcv_space_adjust")
int BPF_PROG(on_read, const struct sock *sk)
{
	struct birth *birth = birth_of(sk);

	if (birth)
		note_first_byte(birth, sk);
	return 0;
}

/* ---- ends that no hook saw ---- */

/* Take what is open off what is missing. Only one process lets it run. */
SEC("iter/bpf_sk_storage_map")
int find_open(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct birth *birth = ctx->value;
	struct lbl_sockets_row *row;
	__u32 id;

	if (!birth || !birth->is_open)
		return 0;
	id = birth->conn.backend_id;
	row = bpf_map_lookup_elem(&rows, &id);
	if (row)
		row->missing--;
	return 0;
}

/* Report the end of a connection of the backend with this id. */
SEC("syscall")
int end_unseen(__u32 *id)
{
	struct lbl_event conn = { .protocol = IPPROTO_TCP, .backend_id = *id };
	struct lbl_sockets_row *row = bpf_map_lookup_elem(&rows, &conn.backend_id);
	__u32 addr[4];

	if (!row)
		return -ENOENT;
	COUNT(unseen);
	__sync_fetch_and_add(&row->ended, 1);
	if (!conn.backend_id) /* nobody knows which backend it was */
		return 0;
	__builtin_memcpy(&conn.port, &row->backend, sizeof(row->backend));
	__builtin_memcpy(addr, conn.addr, sizeof(addr));
	if (is_mapped(addr))
		conn.flags = LBL_FLAG_IPV4;
	return end_unknown(&conn);
}

/* ---- the start ---- */

/* Take the connections that are open already: run once, after the hooks are attached. */
SEC("iter/task_file")
int list_older(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct lbl_event conn = {};
	struct socket *socket;
	struct birth *birth;
	struct sock *sk;
	int state;

	if (!task || !file)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk)
		return 0;
	state = sk->__sk_common.skc_state;
	/* A socket that was accepted has its listener's backlog; one that connected has none. */
	if (state == TCP_CLOSE || state == TCP_LISTEN || sk->sk_max_ack_backlog)
		return 0;
	birth = birth_of(sk);
	if ((birth && birth->is_open) || !takes(&conn, sk, task))
		return 0;
	conn.timestamp_ns = lbl_now();
	begin(sk, &conn);
	COUNT(older);
	return 0;
}
