/* SPDX-License-Identifier: MIT */
/*
 * The demo's balancer: loads bpf/nat_lb.bpf.c, configures listeners and backends, attaches it to
 * interfaces and closes idle connections. Not thread-safe. Every function returns 0 or a count, or
 * -errno; after an error, lbl_log_text() returns the messages of libbpf and the kernel.
 */
#ifndef LBL_NAT_LB_H
#define LBL_NAT_LB_H

#include <stddef.h>
#include <stdint.h>

/* cdef: begin */
struct lbl_nat_lb;

struct lbl_nat_lb_endpoint {
	uint8_t addr[16]; /* network order; IPv4 as ::ffff:a.b.c.d */
	uint16_t port; /* host order */
};

struct lbl_nat_lb_backend {
	struct lbl_nat_lb_endpoint at;
	uint32_t id; /* 1 to 4095; the events' backend_id */
	uint32_t weight; /* 0: no new connections */
};

struct lbl_nat_lb_timeouts { /* seconds without a packet, after which a connection is closed */
	double half_open; /* while the handshake is incomplete */
	double closing; /* after the first FIN */
	double idle;
	double udp_idle;
};

struct lbl_nat_lb_counters {
	uint64_t produced; /* events, including the dropped ones */
	uint64_t dropped; /* events that did not fit into the ring */
	uint64_t conntrack_full;
	uint64_t no_backend;
	uint64_t ignored; /* packets passed unchanged: truncated, fragments, extensions */
	uint64_t stray; /* TCP packets to a listener that belong to no connection */
};

/*
 * Load the programs without attaching them. The ring has `ring_bytes` (a power of two, at least a
 * page); `max_connections` is the capacity of the connection table. -EINVAL for invalid sizes,
 * -EPERM without CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.
 */
int lbl_nat_lb_open(uint32_t ring_bytes, uint32_t max_connections, struct lbl_nat_lb **ret);

/* Detach from all interfaces and free everything except pinned maps. NULL is legal. */
void lbl_nat_lb_free(struct lbl_nat_lb *lb);

/* Return the fd of lbl_events, lbl_counters or lbl_conntrack; the balancer owns it. */
int lbl_nat_lb_ring_fd(const struct lbl_nat_lb *lb);
int lbl_nat_lb_counters_fd(const struct lbl_nat_lb *lb);
int lbl_nat_lb_conntrack_fd(const struct lbl_nat_lb *lb);

/* Return the fd of a program, for tests that run it on packets of their own. */
int lbl_nat_lb_ingress_fd(const struct lbl_nat_lb *lb);
int lbl_nat_lb_egress_fd(const struct lbl_nat_lb *lb);

/*
 * Balance connections to `vip` over `protocol` (6 TCP, 17 UDP) among `count` backends by weight,
 * and report them with `proxy_id`. A known VIP gets new backends; its existing connections keep
 * theirs. -EINVAL for an id out of range, a port of 0 or another protocol, -E2BIG for more than 256
 * backends with a weight, -ENOSPC for more than 64 listeners.
 */
int lbl_nat_lb_add_listener(struct lbl_nat_lb *lb, uint16_t proxy_id, uint8_t protocol,
			    const struct lbl_nat_lb_endpoint *vip,
			    const struct lbl_nat_lb_backend *backends, size_t count);

/*
 * Attach to the interface that faces the clients, in the network namespace of fd `netns`, or the
 * caller's own for -1. Replaces the programs that a killed balancer left there. -ENODEV if the
 * interface does not exist, -ENOSPC for more than 8 interfaces. Aborts the process if the thread
 * cannot return to its own namespace.
 */
int lbl_nat_lb_attach(struct lbl_nat_lb *lb, const char *interface, int netns);

/*
 * Detach from all interfaces, which breaks open connections. The clsact qdisc stays, since other
 * programs may use it. All interfaces are tried; returns the first error. A deleted interface is
 * not an error.
 */
int lbl_nat_lb_detach(struct lbl_nat_lb *lb);

/*
 * Close connections that have exceeded their timeout. Returns their number, or -EINVAL for a
 * timeout that is NaN, negative or longer than a century.
 */
int lbl_nat_lb_sweep(struct lbl_nat_lb *lb, const struct lbl_nat_lb_timeouts *timeouts);

/*
 * Pin lbl_events, lbl_counters and lbl_conntrack in `directory` of a mounted bpffs, created if
 * missing; on failure none is pinned. -EEXIST if a name is taken, -EINVAL if the directory is not
 * in a bpffs.
 */
int lbl_nat_lb_pin(struct lbl_nat_lb *lb, const char *directory);

/* Remove the pins of lbl_nat_lb_pin() and keep the directory. Returns 0 if there are none. */
int lbl_nat_lb_unpin(struct lbl_nat_lb *lb);

/* Read the counters, summed over all CPUs. */
int lbl_nat_lb_counters(const struct lbl_nat_lb *lb, struct lbl_nat_lb_counters *ret);
/* cdef: end */

#endif
