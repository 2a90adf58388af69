/* SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "demo/nat_lb.h"
#include "kernel/counters.h"
#include "../../bpf/nat_lb.h"
#include "nat_lb.skel.h"

#define LBL_NAT_LB_INTERFACES 8
/* Fixed, so that a successor replaces what a killed balancer left on the interface. */
#define LBL_NAT_LB_TC_HANDLE 1
#define LBL_NAT_LB_TC_PRIORITY 0x1b1

struct lbl_attachment {
	int netns;
	int ifindex;
};

struct lbl_nat_lb {
	struct nat_lb *skel;
	char *pinned;
	uint32_t listeners;
	uint32_t attachments;
	struct lbl_attachment attachment[LBL_NAT_LB_INTERFACES];
};

static _Thread_local char error_text[4096];
static _Thread_local size_t error_used;

/* ---- libbpf's words ---- */

/* Keep the end: with a verifier's log, that is where the reason stands. */
static int keep_text(enum libbpf_print_level level, const char *format, va_list args)
{
	char line[2048];
	size_t length;
	int written;

	if (level == LIBBPF_DEBUG)
		return 0;
	written = vsnprintf(line, sizeof(line), format, args);
	if (written <= 0)
		return 0;
	length = (size_t)written < sizeof(line) ? (size_t)written : sizeof(line) - 1;
	if (error_used + length >= sizeof(error_text)) {
		size_t gone = error_used + length + 1 - sizeof(error_text);

		memmove(error_text, error_text + gone, error_used - gone);
		error_used -= gone;
	}
	memcpy(error_text + error_used, line, length);
	error_used += length;
	error_text[error_used] = '\0';
	return 0;
}

/*
 * libbpf's log has one destination a process; it is ours for the span of a call. Two threads at
 * once get their own text each, since the buffer is the thread's; at worst a line is printed.
 */
static libbpf_print_fn_t listen_to_libbpf(void)
{
	error_used = 0;
	error_text[0] = '\0';
	return libbpf_set_print(keep_text);
}

const char *lbl_nat_lb_error_text(void)
{
	return error_text;
}

/* ---- load ---- */

int lbl_nat_lb_open(uint32_t ring_bytes, uint32_t max_connections, struct lbl_nat_lb **ret)
{
	libbpf_print_fn_t before = listen_to_libbpf();
	struct lbl_nat_lb *lb;
	int rc;

	if (ring_bytes < (uint32_t)getpagesize() || ring_bytes & (ring_bytes - 1) ||
	    !max_connections) {
		rc = -EINVAL;
		goto out;
	}
	lb = calloc(1, sizeof(*lb));
	if (!lb) {
		rc = -ENOMEM;
		goto out;
	}
	lb->skel = nat_lb__open();
	if (!lb->skel) {
		rc = -errno;
		goto err_out;
	}
	rc = bpf_map__set_max_entries(lb->skel->maps.lbl_events, ring_bytes);
	if (!rc)
		rc = bpf_map__set_max_entries(lb->skel->maps.lbl_conntrack, max_connections);
	if (!rc)
		rc = bpf_map__set_max_entries(lb->skel->maps.nat_steer, max_connections);
	if (rc)
		goto err_out;
	lb->skel->rodata->lbl_wakeup_bytes = ring_bytes / 4;
	rc = nat_lb__load(lb->skel);
	if (rc)
		goto err_out;
	*ret = lb;
	goto out;

err_out:
	nat_lb__destroy(lb->skel);
	free(lb);
out:
	libbpf_set_print(before);
	return rc;
}

void lbl_nat_lb_free(struct lbl_nat_lb *lb)
{
	if (!lb)
		return;
	lbl_nat_lb_detach(lb);
	nat_lb__destroy(lb->skel);
	free(lb->pinned);
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

static struct nat_endpoint endpoint(const struct lbl_nat_lb_endpoint *at, uint8_t protocol)
{
	struct nat_endpoint made = { .port = htons(at->port), .protocol = protocol };

	memcpy(made.addr, at->addr, sizeof(made.addr));
	return made;
}

/*
 * Share the slots out by weight: one for each backend that has a weight, so that none starves, and
 * of the rest what is proportional, where the running sum carries the fractions over.
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
	struct nat_endpoint key = endpoint(vip, protocol);
	struct nat_listener listener = { 0 };
	uint32_t slots[NAT_SLOTS], slot;
	bool known;
	size_t i;
	int rc;

	error_text[0] = '\0';
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
		if (lb->listeners == NAT_LISTENERS)
			return -ENOSPC;
		listener.first_slot = lb->listeners * NAT_SLOTS;
	}
	listener.proxy_id = proxy_id;

	/* From the far end: what a packet finds always leads somewhere. */
	for (i = 0; i < count && !rc; i++) {
		struct nat_endpoint backend = endpoint(&backends[i].at, protocol);

		rc = update(lb->skel->maps.nat_backends, &backends[i].id, &backend);
	}
	for (i = 0; i < NAT_SLOTS && !rc; i++) {
		slot = listener.first_slot + (uint32_t)i;
		rc = update(lb->skel->maps.nat_slots, &slot, &slots[i]);
	}
	if (!rc)
		rc = update(lb->skel->maps.nat_listeners, &key, &listener);
	if (!rc && !known)
		lb->listeners++;
	return rc;
}

/* ---- interfaces ---- */

/* Take the thread into a namespace. Returns a descriptor of the one it leaves, or -errno. */
static int enter_netns(int netns)
{
	int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	int rc;

	if (home < 0)
		return -errno;
	if (netns >= 0 && setns(netns, CLONE_NEWNET)) {
		rc = -errno;
		close(home);
		return rc;
	}
	return home;
}

static void leave_netns(int home)
{
	if (setns(home, CLONE_NEWNET))
		abort();
	close(home);
}

static int attach_one(int ifindex, enum bpf_tc_attach_point point, int program)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = point);
	LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = program, .flags = BPF_TC_F_REPLACE,
		    .handle = LBL_NAT_LB_TC_HANDLE, .priority = LBL_NAT_LB_TC_PRIORITY);
	int rc = bpf_tc_hook_create(&hook);

	if (rc && rc != -EEXIST)
		return rc;
	return bpf_tc_attach(&hook, &opts);
}

static int detach_one(int ifindex, enum bpf_tc_attach_point point)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = point);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = LBL_NAT_LB_TC_HANDLE,
		    .priority = LBL_NAT_LB_TC_PRIORITY);
	int rc = bpf_tc_detach(&hook, &opts);

	/* Gone: the filter, the qdisc or the interface itself. */
	return rc == -ENOENT || rc == -EINVAL || rc == -ENODEV ? 0 : rc;
}

int lbl_nat_lb_attach(struct lbl_nat_lb *lb, const char *interface, int netns)
{
	libbpf_print_fn_t before = listen_to_libbpf();
	struct lbl_attachment *attachment;
	int home, rc, kept = -1;
	unsigned int ifindex;

	home = enter_netns(netns);
	if (home < 0) {
		libbpf_set_print(before);
		return home;
	}
	rc = -ENOSPC;
	if (lb->attachments == LBL_NAT_LB_INTERFACES)
		goto err_out;
	ifindex = if_nametoindex(interface);
	if (!ifindex) {
		rc = -errno;
		goto err_out;
	}
	kept = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (kept < 0) {
		rc = -errno;
		goto err_out;
	}
	/* Replies first: from the first connection on, nothing goes back untranslated. */
	rc = attach_one((int)ifindex, BPF_TC_EGRESS, lbl_nat_lb_egress_fd(lb));
	if (rc)
		goto err_out;
	rc = attach_one((int)ifindex, BPF_TC_INGRESS, lbl_nat_lb_ingress_fd(lb));
	if (rc) {
		detach_one((int)ifindex, BPF_TC_EGRESS);
		goto err_out;
	}
	attachment = &lb->attachment[lb->attachments++];
	attachment->netns = kept;
	attachment->ifindex = (int)ifindex;
	kept = -1;

err_out:
	if (kept >= 0)
		close(kept);
	leave_netns(home);
	libbpf_set_print(before);
	return rc;
}

int lbl_nat_lb_detach(struct lbl_nat_lb *lb)
{
	libbpf_print_fn_t before = listen_to_libbpf();
	int first = 0;

	while (lb->attachments) {
		struct lbl_attachment *attachment = &lb->attachment[--lb->attachments];
		int home = enter_netns(attachment->netns);
		int rc = home < 0 ? home : 0;

		if (home >= 0) {
			rc = detach_one(attachment->ifindex, BPF_TC_INGRESS);
			first = first ? first : rc;
			rc = detach_one(attachment->ifindex, BPF_TC_EGRESS);
			leave_netns(home);
		}
		first = first ? first : rc;
		close(attachment->netns);
	}
	libbpf_set_print(before);
	return first;
}

/* ---- running ---- */

/* False for NaN too. A century at most, which in nanoseconds does not overflow. */
static bool usable(double seconds)
{
	return seconds >= 0 && seconds < 3e9;
}

int lbl_nat_lb_sweep(struct lbl_nat_lb *lb, const struct lbl_nat_lb_timeouts *timeouts)
{
	struct nat_sweep sweep = { 0 };
	LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = &sweep, .ctx_size_in = sizeof(sweep));

	error_text[0] = '\0';
	if (!usable(timeouts->half_open) || !usable(timeouts->closing) || !usable(timeouts->idle) ||
	    !usable(timeouts->udp_idle))
		return -EINVAL;
	sweep.half_open_ns = (uint64_t)(timeouts->half_open * 1e9);
	sweep.closing_ns = (uint64_t)(timeouts->closing * 1e9);
	sweep.idle_ns = (uint64_t)(timeouts->idle * 1e9);
	sweep.udp_idle_ns = (uint64_t)(timeouts->udp_idle * 1e9);
	if (bpf_prog_test_run_opts(bpf_program__fd(lb->skel->progs.nat_lb_sweep), &run))
		return -errno;
	return (int)sweep.closed;
}

/* What is pinned, under the name that the map has. */
static void public_maps(const struct lbl_nat_lb *lb, struct bpf_map *ret[3])
{
	ret[0] = lb->skel->maps.lbl_events;
	ret[1] = lb->skel->maps.lbl_counters;
	ret[2] = lb->skel->maps.lbl_conntrack;
}

static int unpin_first(struct lbl_nat_lb *lb, int count)
{
	struct bpf_map *maps[3];
	int first = 0;

	public_maps(lb, maps);
	while (count--) {
		int rc = bpf_map__unpin(maps[count], NULL);

		if (rc && rc != -ENOENT && !first)
			first = rc;
	}
	return first;
}

int lbl_nat_lb_pin(struct lbl_nat_lb *lb, const char *directory)
{
	libbpf_print_fn_t before = listen_to_libbpf();
	struct bpf_map *maps[3];
	char path[PATH_MAX];
	int i = 0, rc;

	rc = -EBUSY;
	if (lb->pinned)
		goto out;
	public_maps(lb, maps);
	lb->pinned = strdup(directory);
	if (!lb->pinned) {
		rc = -ENOMEM;
		goto out;
	}
	if (mkdir(directory, 0750) && errno != EEXIST) {
		rc = -errno;
		goto err_out;
	}
	for (i = 0; i < 3; i++) {
		int length =
			snprintf(path, sizeof(path), "%s/%s", directory, bpf_map__name(maps[i]));

		rc = length >= (int)sizeof(path) ? -ENAMETOOLONG : bpf_map__pin(maps[i], path);
		if (rc)
			goto err_out;
	}
	goto out;

err_out:
	unpin_first(lb, i);
	free(lb->pinned);
	lb->pinned = NULL;
out:
	libbpf_set_print(before);
	return rc;
}

int lbl_nat_lb_unpin(struct lbl_nat_lb *lb)
{
	libbpf_print_fn_t before = listen_to_libbpf();
	int rc = lb->pinned ? unpin_first(lb, 3) : 0;

	free(lb->pinned);
	lb->pinned = NULL;
	libbpf_set_print(before);
	return rc;
}

int lbl_nat_lb_counters(const struct lbl_nat_lb *lb, struct lbl_nat_lb_counters *ret)
{
	struct lbl_counters events;
	struct nat_counters packets;
	int rc;

	error_text[0] = '\0';
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
