// SPDX-License-Identifier: MIT
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fnmatch.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "flows.skel.h"
#include "kernel/counters.h"
#include "kernel/log.h"
#include "kernel/netns.h"
#include "kernel/tc.h"
#include "kernel/tcx.h"
#include "source/flows.h"

enum { IN, OUT, WAYS };
enum { ETHERNET, IP };

static const enum bpf_tc_attach_point POINTS[WAYS] = {
	[IN] = BPF_TC_INGRESS,
	[OUT] = BPF_TC_EGRESS,
};

/* An interface that the programs are attached to. */
struct attached {
	int ifindex;
	int links[WAYS]; /* fds; -1 is a filter of clsact */
};

struct lbl_flows {
	struct flows *skel;
	int netns;
	char **patterns;
	size_t n_patterns;
	struct attached *attached;
	size_t n_attached;
};

/* ---- load ---- */

static int load(struct flows *skel, uint32_t ring_bytes, uint32_t max_connections)
{
	int err = bpf_map__set_max_entries(skel->maps.lbl_events, ring_bytes);

	if (!err)
		err = bpf_map__set_max_entries(skel->maps.flows_conns, max_connections);
	skel->rodata->lbl_wakeup_bytes = ring_bytes / 4;
	return err ? err : flows__load(skel);
}

int lbl_flows_open(uint32_t ring_bytes, uint32_t max_connections, struct lbl_flows **ret)
{
	struct lbl_flows *flows;
	int err;

	lbl_log_block();
	if (ring_bytes < (uint32_t)getpagesize() || ring_bytes & (ring_bytes - 1) ||
	    !max_connections)
		return -EINVAL;
	flows = calloc(1, sizeof(*flows));
	if (!flows)
		return -ENOMEM;
	flows->netns = lbl_netns_current();
	flows->skel = flows->netns < 0 ? NULL : flows__open();
	if (flows->netns < 0)
		err = flows->netns;
	else
		err = flows->skel ? load(flows->skel, ring_bytes, max_connections) : -errno;
	if (err) {
		lbl_flows_free(flows);
		return err;
	}
	*ret = flows;
	return 0;
}

int lbl_flows_ring_fd(const struct lbl_flows *flows)
{
	return bpf_map__fd(flows->skel->maps.lbl_events);
}

int lbl_flows_counters_fd(const struct lbl_flows *flows)
{
	return bpf_map__fd(flows->skel->maps.lbl_counters);
}

int lbl_flows_networks_fd(const struct lbl_flows *flows)
{
	return bpf_map__fd(flows->skel->maps.lbl_networks);
}

int lbl_flows_in_fd(const struct lbl_flows *flows)
{
	return bpf_program__fd(flows->skel->progs.lbl_flows_in);
}

int lbl_flows_out_fd(const struct lbl_flows *flows)
{
	return bpf_program__fd(flows->skel->progs.lbl_flows_out);
}

/* ---- interfaces ---- */

/*
 * Where older kernels have the program. Handle and priority are fixed, so that a successor replaces
 * a killed process's programs; `tc filter show` has their names.
 */
static struct lbl_tc_place make_place(int ifindex, int way)
{
	return (struct lbl_tc_place){
		.ifindex = ifindex,
		.point = POINTS[way],
		.handle = 1,
		.priority = 0x1b2,
	};
}

/* Return the program for what the device's packets begin with: ETHERNET or IP. */
static int program(const struct lbl_flows *flows, int link, int way)
{
	const struct bpf_program *programs[][WAYS] = {
		{ flows->skel->progs.lbl_flows_in, flows->skel->progs.lbl_flows_out },
		{ flows->skel->progs.lbl_flows_in_ip, flows->skel->progs.lbl_flows_out_ip },
	};

	return bpf_program__fd(programs[link][way]);
}

static int attach_way(const struct lbl_flows *flows, struct attached *to, int link, int way)
{
	int prog_fd = program(flows, link, way);
	struct lbl_tc_place place = make_place(to->ifindex, way);
	int fd = lbl_tcx_attach(to->ifindex, POINTS[way], prog_fd);

	to->links[way] = fd < 0 ? -1 : fd;
	if (fd != -EINVAL)
		return fd < 0 ? fd : 0;
	return lbl_tc_attach(&place, prog_fd);
}

static void detach_way(const struct attached *from, int way)
{
	struct lbl_tc_place place = make_place(from->ifindex, way);

	if (from->links[way] >= 0)
		close(from->links[way]);
	else
		lbl_tc_detach(&place);
}

static int attach(struct lbl_flows *flows, int ifindex, int link)
{
	struct attached made = { .ifindex = ifindex };
	struct attached *grown;
	int err;

	grown = realloc(flows->attached, (flows->n_attached + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	flows->attached = grown;
	err = attach_way(flows, &made, link, IN);
	if (err)
		return err;
	err = attach_way(flows, &made, link, OUT);
	if (err) {
		detach_way(&made, IN);
		return err;
	}
	grown[flows->n_attached++] = made;
	return 0;
}

/* The caller is in the namespace of the interfaces. */
static void detach(struct lbl_flows *flows, size_t i)
{
	detach_way(&flows->attached[i], IN);
	detach_way(&flows->attached[i], OUT);
	flows->attached[i] = flows->attached[--flows->n_attached];
}

static bool is_attached(const struct lbl_flows *flows, int ifindex)
{
	size_t i;

	for (i = 0; i < flows->n_attached; i++)
		if (flows->attached[i].ifindex == ifindex)
			return true;
	return false;
}

static bool is_there(const struct if_nameindex *all, int ifindex)
{
	for (; all->if_index; all++)
		if ((int)all->if_index == ifindex)
			return true;
	return false;
}

static bool is_wanted(const struct lbl_flows *flows, const char *name)
{
	size_t i;

	for (i = 0; i < flows->n_patterns; i++)
		if (!fnmatch(flows->patterns[i], name, 0))
			return true;
	return false;
}

/* Return what the device's packets begin with, ETHERNET or IP, or -errno. */
static int link_of(const char *name)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc;
	struct ifreq request = { 0 };

	if (fd < 0)
		return -errno;
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	rc = ioctl(fd, SIOCGIFHWADDR, &request) ? -errno : 0;
	close(fd);
	if (rc)
		return rc;
	switch (request.ifr_hwaddr.sa_family) {
	case ARPHRD_ETHER:
	case ARPHRD_LOOPBACK:
		return ETHERNET;
	case ARPHRD_NONE:
	case ARPHRD_PPP:
	case ARPHRD_RAWIP:
	case ARPHRD_TUNNEL:
	case ARPHRD_TUNNEL6:
	case ARPHRD_SIT:
		return IP;
	default:
		return -EPFNOSUPPORT;
	}
}

/* Forget the interfaces that have gone, and attach to those that have come. */
static int follow(struct lbl_flows *flows)
{
	struct if_nameindex *all = if_nameindex(), *each;
	int first = 0, link, err;
	size_t i;

	if (!all)
		return -errno;
	for (i = flows->n_attached; i-- > 0;)
		if (!is_there(all, flows->attached[i].ifindex))
			detach(flows, i);
	for (each = all; each->if_index; each++) {
		if (!is_wanted(flows, each->if_name) || is_attached(flows, (int)each->if_index))
			continue;
		link = link_of(each->if_name);
		if (link < 0)
			continue; /* of a pattern; or it has gone */
		err = attach(flows, (int)each->if_index, link);
		/* It may have gone meanwhile. */
		if (err && err != -ENODEV && !first)
			first = err;
	}
	if_freenameindex(all);
	return first;
}

int lbl_flows_follow(struct lbl_flows *flows)
{
	int home, rc;

	lbl_log_block();
	home = lbl_netns_enter(flows->netns);
	if (home < 0)
		return home;
	rc = follow(flows);
	lbl_netns_leave(home);
	return rc;
}

/* Return 0 if the interface can be attached to; one of a pattern may come later. */
static int check_name(const struct lbl_flows *flows, const char *pattern)
{
	int home, err;

	if (strpbrk(pattern, "*?["))
		return 0;
	home = lbl_netns_enter(flows->netns);
	if (home < 0)
		return home;
	err = link_of(pattern);
	lbl_netns_leave(home);
	return err < 0 ? err : 0;
}

int lbl_flows_watch(struct lbl_flows *flows, const char *pattern)
{
	char **grown, *copy;
	int err = check_name(flows, pattern);

	if (err)
		return err;
	grown = realloc(flows->patterns, (flows->n_patterns + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	flows->patterns = grown;
	copy = strdup(pattern);
	if (!copy)
		return -ENOMEM;
	grown[flows->n_patterns++] = copy;
	return lbl_flows_follow(flows);
}

uint32_t lbl_flows_followed(const struct lbl_flows *flows)
{
	return (uint32_t)flows->n_attached;
}

bool lbl_flows_is_linked(const struct lbl_flows *flows)
{
	size_t i;

	for (i = 0; i < flows->n_attached; i++)
		if (flows->attached[i].links[IN] < 0)
			return false;
	return true;
}

void lbl_flows_free(struct lbl_flows *flows)
{
	int home;

	if (!flows)
		return;
	home = flows->n_attached ? lbl_netns_enter(flows->netns) : -1;
	if (home >= 0) {
		while (flows->n_attached)
			detach(flows, 0);
		lbl_netns_leave(home);
	}
	while (flows->n_patterns)
		free(flows->patterns[--flows->n_patterns]);
	free(flows->patterns);
	free(flows->attached);
	flows__destroy(flows->skel);
	lbl_close(flows->netns);
	free(flows);
}

/* ---- running ---- */

int lbl_flows_sweep(struct lbl_flows *flows, const struct lbl_idle *idle)
{
	struct flows_sweep sweep = {
		.idle = *idle,
		.ring_bytes = bpf_map__max_entries(flows->skel->maps.lbl_events),
	};
	LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = &sweep, .ctx_size_in = sizeof(sweep));

	lbl_log_block();
	if (bpf_prog_test_run_opts(bpf_program__fd(flows->skel->progs.lbl_flows_sweep), &run))
		return -errno;
	return (int)sweep.is_partial;
}

int lbl_flows_counters(const struct lbl_flows *flows, struct lbl_flows_counters *ret)
{
	lbl_log_block();
	return lbl_counters_sum(bpf_map__fd(flows->skel->maps.flows_counters), (uint64_t *)ret,
				sizeof(*ret) / 8);
}
