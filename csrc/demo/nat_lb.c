/* SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../bpf/nat_lb.h"
#include "demo/nat_lb.h"
#include "kernel/counters.h"
#include "kernel/log.h"
#include "kernel/netns.h"
#include "kernel/pins.h"
#include "kernel/tc.h"
#include "nat_lb.skel.h"

enum { INTERFACES_MAX = 8, PUBLIC_MAPS = 3 };

struct interface {
	int netns;
	int ifindex;
};

struct lbl_nat_lb {
	struct nat_lb *skel;
	struct bpf_map *public_maps[PUBLIC_MAPS]; /* pinned under their own names */
	uint32_t n_listeners;
	uint32_t n_interfaces;
	struct interface interfaces[INTERFACES_MAX];
};

/* ---- load ---- */

static int load(struct nat_lb *skel, uint32_t ring_bytes, uint32_t max_connections)
{
	int err;

	err = bpf_map__set_max_entries(skel->maps.lbl_events, ring_bytes);
	if (!err)
		err = bpf_map__set_max_entries(skel->maps.lbl_conntrack, max_connections);
	if (!err)
		err = bpf_map__set_max_entries(skel->maps.nat_steer, max_connections);
	skel->rodata->lbl_wakeup_bytes = ring_bytes / 4;
	return err ? err : nat_lb__load(skel);
}

int lbl_nat_lb_open(uint32_t ring_bytes, uint32_t max_connections, struct lbl_nat_lb **ret)
{
	struct lbl_nat_lb *lb;
	int err;

	lbl_log_block();
	if (ring_bytes < (uint32_t)getpagesize() || ring_bytes & (ring_bytes - 1) ||
	    !max_connections)
		return -EINVAL;
	lb = calloc(1, sizeof(*lb));
	if (!lb)
		return -ENOMEM;
	lb->skel = nat_lb__open();
	err = lb->skel ? load(lb->skel, ring_bytes, max_connections) : -errno;
	if (err) {
		nat_lb__destroy(lb->skel);
		free(lb);
		return err;
	}
	lb->public_maps[0] = lb->skel->maps.lbl_events;
	lb->public_maps[1] = lb->skel->maps.lbl_counters;
	lb->public_maps[2] = lb->skel->maps.lbl_conntrack;
	*ret = lb;
	return 0;
}

void lbl_nat_lb_free(struct lbl_nat_lb *lb)
{
	if (!lb)
		return;
	lbl_nat_lb_detach(lb);
	nat_lb__destroy(lb->skel);
	free(lb);
}

int lbl_nat_lb_ring_fd(const struct lbl_nat_lb *lb)
{
	return bpf_map__fd(lb->skel->maps.lbl_events);
}

int lbl_nat_lb_counters_fd(const struct lbl_nat_lb *lb)
{
	return bpf_map__fd(lb->skel->maps.lbl_counters);
}

int lbl_nat_lb_conntrack_fd(const struct lbl_nat_lb *lb)
{
	return bpf_map__fd(lb->skel->maps.lbl_conntrack);
}

int lbl_nat_lb_ingress_fd(const struct lbl_nat_lb *lb)
{
	return bpf_program__fd(lb->skel->progs.nat_lb_ingress);
}

int lbl_nat_lb_egress_fd(const struct lbl_nat_lb *lb)
{
	return bpf_program__fd(lb->skel->progs.nat_lb_egress);
}

/* ---- listeners ---- */

static struct nat_endpoint make_endpoint(const struct lbl_nat_lb_endpoint *at, uint8_t protocol)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	struct nat_endpoint made = { .port = htons(at->port), .protocol = protocol };
	size_t skip = memcmp(at->addr, mapped, sizeof(mapped)) ? 0 : sizeof(mapped);

	memcpy(made.addr + skip, at->addr + skip, sizeof(made.addr) - skip);
	return made;
}

/*
 * Distribute the slots by weight. Each backend with a weight gets one slot, so that none starves;
 * the remaining slots are proportional, and the running sum carries the fractions.
 */
static int fill_slots(const struct lbl_nat_lb_backend *backends, size_t count,
		      uint32_t slots[NAT_SLOTS])
{
	uint64_t total = 0, so_far = 0, spare, given = 0;
	size_t i, weighted = 0, at = 0;

	memset(slots, 0, NAT_SLOTS * sizeof(*slots));
	for (i = 0; i < count; i++) {
		total += backends[i].weight;
		weighted += backends[i].weight > 0;
	}
	if (weighted > NAT_SLOTS)
		return -E2BIG;
	spare = NAT_SLOTS - weighted;
	for (i = 0; i < count; i++) {
		uint64_t until, n;

		if (!backends[i].weight)
			continue;
		so_far += backends[i].weight;
		until = (so_far * spare + total / 2) / total;
		n = 1 + until - given;
		given = until;
		while (n--)
			slots[at++] = backends[i].id;
	}
	return 0;
}

static int update(struct bpf_map *map, const void *key, const void *value)
{
	return bpf_map_update_elem(bpf_map__fd(map), key, value, BPF_ANY) ? -errno : 0;
}

int lbl_nat_lb_add_listener(struct lbl_nat_lb *lb, uint16_t proxy_id, uint8_t protocol,
			    const struct lbl_nat_lb_endpoint *vip,
			    const struct lbl_nat_lb_backend *backends, size_t count)
{
	struct nat_endpoint key = make_endpoint(vip, protocol);
	struct nat_listener listener = { 0 };
	uint32_t slots[NAT_SLOTS], slot;
	bool known;
	size_t i;
	int rc;

	lbl_log_block();
	if ((protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) || !vip->port)
		return -EINVAL;
	for (i = 0; i < count; i++)
		if (!backends[i].id || backends[i].id >= NAT_BACKENDS || !backends[i].at.port)
			return -EINVAL;
	rc = fill_slots(backends, count, slots);
	if (rc)
		return rc;
	known = !bpf_map_lookup_elem(bpf_map__fd(lb->skel->maps.nat_listeners), &key, &listener);
	if (!known) {
		if (lb->n_listeners == NAT_LISTENERS)
			return -ENOSPC;
		listener.first_slot = lb->n_listeners * NAT_SLOTS;
	}
	listener.proxy_id = proxy_id;

	/* Write backends before slots before the listener: no packet finds a dangling reference. */
	for (i = 0; i < count && !rc; i++) {
		struct nat_endpoint backend = make_endpoint(&backends[i].at, protocol);

		rc = update(lb->skel->maps.nat_backends, &backends[i].id, &backend);
	}
	for (i = 0; i < NAT_SLOTS && !rc; i++) {
		slot = listener.first_slot + (uint32_t)i;
		rc = update(lb->skel->maps.nat_slots, &slot, &slots[i]);
	}
	if (!rc)
		rc = update(lb->skel->maps.nat_listeners, &key, &listener);
	if (!rc && !known)
		lb->n_listeners++;
	return rc;
}

/* ---- interfaces ---- */

/* Handle and priority are fixed, so that a successor replaces a killed balancer's programs. */
static struct lbl_tc_place make_place(int ifindex, enum bpf_tc_attach_point point)
{
	return (struct lbl_tc_place){
		.ifindex = ifindex,
		.point = point,
		.handle = 1,
		.priority = 0x1b1,
	};
}

static int attach_both(const struct lbl_nat_lb *lb, int ifindex)
{
	struct lbl_tc_place ingress = make_place(ifindex, BPF_TC_INGRESS);
	struct lbl_tc_place egress = make_place(ifindex, BPF_TC_EGRESS);
	int err;

	/* Attach the reply side first, so that no reply leaves untranslated. */
	err = lbl_tc_attach(&egress, lbl_nat_lb_egress_fd(lb));
	if (err)
		return err;
	err = lbl_tc_attach(&ingress, lbl_nat_lb_ingress_fd(lb));
	if (err)
		lbl_tc_detach(&egress);
	return err;
}

static int detach_both(int ifindex)
{
	struct lbl_tc_place ingress = make_place(ifindex, BPF_TC_INGRESS);
	struct lbl_tc_place egress = make_place(ifindex, BPF_TC_EGRESS);
	int first = lbl_tc_detach(&ingress), err = lbl_tc_detach(&egress);

	return first ? first : err;
}

static int attach_here(struct lbl_nat_lb *lb, const char *name)
{
	int ifindex, netns, err;

	if (lb->n_interfaces == INTERFACES_MAX)
		return -ENOSPC;
	ifindex = (int)if_nametoindex(name);
	if (!ifindex)
		return -errno;
	netns = lbl_netns_current();
	if (netns < 0)
		return netns;
	err = attach_both(lb, ifindex);
	if (err) {
		close(netns);
		return err;
	}
	lb->interfaces[lb->n_interfaces++] = (struct interface){ netns, ifindex };
	return 0;
}

int lbl_nat_lb_attach(struct lbl_nat_lb *lb, const char *interface, int netns)
{
	int home, err;

	lbl_log_block();
	home = lbl_netns_enter(netns);
	if (home < 0)
		return home;
	err = attach_here(lb, interface);
	lbl_netns_leave(home);
	return err;
}

int lbl_nat_lb_detach(struct lbl_nat_lb *lb)
{
	int first = 0, home, err;

	lbl_log_block();
	while (lb->n_interfaces) {
		struct interface *interface = &lb->interfaces[--lb->n_interfaces];

		home = err = lbl_netns_enter(interface->netns);
		if (home >= 0) {
			err = detach_both(interface->ifindex);
			lbl_netns_leave(home);
		}
		first = first ? first : err;
		close(interface->netns);
	}
	return first;
}

/* ---- running ---- */

/* Return false for NaN, too. The limit is a century, which does not overflow in ns. */
static bool is_timeout(double seconds)
{
	return seconds >= 0 && seconds < 3e9;
}

int lbl_nat_lb_sweep(struct lbl_nat_lb *lb, const struct lbl_nat_lb_timeouts *timeouts)
{
	struct nat_sweep sweep = { 0 };
	LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = &sweep, .ctx_size_in = sizeof(sweep));

	lbl_log_block();
	if (!is_timeout(timeouts->half_open) || !is_timeout(timeouts->closing) ||
	    !is_timeout(timeouts->idle) || !is_timeout(timeouts->udp_idle))
		return -EINVAL;
	sweep.idle.half_open_ns = (uint64_t)(timeouts->half_open * 1e9);
	sweep.idle.closing_ns = (uint64_t)(timeouts->closing * 1e9);
	sweep.idle.idle_ns = (uint64_t)(timeouts->idle * 1e9);
	sweep.idle.udp_idle_ns = (uint64_t)(timeouts->udp_idle * 1e9);
	if (bpf_prog_test_run_opts(bpf_program__fd(lb->skel->progs.nat_lb_sweep), &run))
		return -errno;
	return (int)sweep.closed;
}

int lbl_nat_lb_pin(struct lbl_nat_lb *lb, const char *directory)
{
	lbl_log_block();
	return lbl_pins_add(lb->public_maps, PUBLIC_MAPS, directory);
}

int lbl_nat_lb_unpin(struct lbl_nat_lb *lb)
{
	lbl_log_block();
	return lbl_pins_remove(lb->public_maps, PUBLIC_MAPS);
}

int lbl_nat_lb_counters(const struct lbl_nat_lb *lb, struct lbl_nat_lb_counters *ret)
{
	struct lbl_counters events;
	struct nat_counters packets;
	int rc;

	lbl_log_block();
	rc = lbl_counters_sum(lbl_nat_lb_counters_fd(lb), (uint64_t *)&events, sizeof(events) / 8);
	if (!rc)
		rc = lbl_counters_sum(bpf_map__fd(lb->skel->maps.nat_counters),
				      (uint64_t *)&packets, sizeof(packets) / 8);
	if (rc)
		return rc;
	*ret = (struct lbl_nat_lb_counters){
		.produced = events.produced,
		.dropped = events.dropped,
		.conntrack_full = packets.conntrack_full,
		.no_backend = packets.no_backend,
		.ignored = packets.ignored,
		.stray = packets.stray,
	};
	return 0;
}
