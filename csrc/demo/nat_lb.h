/* SPDX-License-Identifier: MIT */
/*
 * The demonstration balancer: loads bpf/nat_lb.bpf.c, gives it listeners and backends, attaches it
 * to interfaces and sweeps it. Not thread-safe: one balancer, one thread at a time. Every function
 * returns 0 or a count, or -errno; then lbl_log_text() has libbpf's and the kernel's words.
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
	uint32_t id; /* 1 to 4095, in the events too */
	uint32_t weight; /* 0: no new connections */
};

struct lbl_nat_lb_timeouts { /* seconds of silence, after which a connection is closed */
	double half_open; /* the handshake not completed */
	double closing; /* a FIN seen */
	double idle;
	double udp_idle;
};

struct lbl_nat_lb_counters {
	uint64_t produced; /* events, the dropped ones included */
	uint64_t dropped; /* events that the ring had no room for */
	uint64_t conntrack_full;
	uint64_t no_backend;
	uint64_t ignored; /* packets passed as they came: truncated, fragments, extensions */
	uint64_t stray; /* TCP packets to a listener, of no known connection */
};

/*
 * Load the programs, not yet attached to anything, with a ring of `ring_bytes` (a power of two, at
 * least a page) and room for `max_connections` at once. -EINVAL for sizes that cannot be, -EPERM
 * without CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.
 */
int lbl_nat_lb_open(uint32_t ring_bytes, uint32_t max_connections, struct lbl_nat_lb **ret);

/* Detach from all interfaces and give everything back, but for what is pinned. NULL is legal. */
void lbl_nat_lb_free(struct lbl_nat_lb *lb);

/* Descriptors of the maps lbl_events, lbl_counters and lbl_conntrack; they stay the balancer's. */
int lbl_nat_lb_ring_fd(const struct lbl_nat_lb *lb);
int lbl_nat_lb_counters_fd(const struct lbl_nat_lb *lb);
int lbl_nat_lb_conntrack_fd(const struct lbl_nat_lb *lb);

/* Descriptors of the two programs, for tests that hand them packets of their own making. */
int lbl_nat_lb_ingress_fd(const struct lbl_nat_lb *lb);
int lbl_nat_lb_egress_fd(const struct lbl_nat_lb *lb);

/*
 * Balance what comes to `vip` over `protocol` (6 TCP, 17 UDP) among `count` backends by weight, and
 * report it under `proxy_id`. Again for the same VIP: replaces its backends, and connections that
 * exist stay where they are. -EINVAL for an id out of range, a port of 0 or a protocol not known,
 * -E2BIG for more than 256 backends of a weight, -ENOSPC for more than 64 listeners.
 */
int lbl_nat_lb_add_listener(struct lbl_nat_lb *lb, uint16_t proxy_id, uint8_t protocol,
			    const struct lbl_nat_lb_endpoint *vip,
			    const struct lbl_nat_lb_backend *backends, size_t count);

/*
 * Attach to the interface that faces the clients, in the network namespace open as `netns` or with
 * -1 the caller's own. An earlier balancer's programs on it, as a kill leaves them, are replaced.
 * -ENODEV for no such interface, -ENOSPC for more than 8. If the thread cannot be brought back to
 * its own namespace, the process is aborted: it must not go on in another one.
 */
int lbl_nat_lb_attach(struct lbl_nat_lb *lb, const char *interface, int netns);

/*
 * Detach from all interfaces; connections then break. The empty clsact qdisc stays, for others may
 * use it by now. Returns the first error, having tried all; an interface that is gone is none.
 */
int lbl_nat_lb_detach(struct lbl_nat_lb *lb);

/* Close the connections that have been silent for too long. Returns how many. */
int lbl_nat_lb_sweep(struct lbl_nat_lb *lb, const struct lbl_nat_lb_timeouts *timeouts);

/*
 * Pin lbl_events, lbl_counters and lbl_conntrack in `directory`, made if missing, of a mounted BPF
 * file system. All or none. -EEXIST if they are there already, -EINVAL if it is not on such one.
 */
int lbl_nat_lb_pin(struct lbl_nat_lb *lb, const char *directory);

/* Take the pins of lbl_nat_lb_pin() away; the directory stays. 0 if there are none. */
int lbl_nat_lb_unpin(struct lbl_nat_lb *lb);

/* The sums over all CPUs. */
int lbl_nat_lb_counters(const struct lbl_nat_lb *lb, struct lbl_nat_lb_counters *ret);
/* cdef: end */

#endif
