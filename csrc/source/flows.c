// SPDX-License-Identifier: MIT
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "flows.skel.h"
#include "kernel/counters.h"
#include "kernel/log.h"
#include "kernel/maps.h"
#include "kernel/pins.h"
#include "source/flows.h"
#include "source/interfaces.h"

enum {
	RING,
	RING_COUNTERS,
	NETWORKS,
	CONNS,
	COUNTERS,
	PROGRAMS, /* the maps end */
	SWEEP = PROGRAMS + LBL_DEVICES * LBL_WAYS,
	FDS,
};

_Static_assert((int)FDS == LBL_FLOWS_FDS, "each fd can be pinned");

/* Maps by their names in the program. */
static const char *const names[FDS] = {
	[RING] = "lbl_events",
	[RING_COUNTERS] = "lbl_counters",
	[NETWORKS] = "lbl_networks",
	[CONNS] = "flows_conns",
	[COUNTERS] = "flows_counters",
	[PROGRAMS + LBL_DEVICE_ETHERNET * LBL_WAYS + LBL_IN] = "program_in",
	[PROGRAMS + LBL_DEVICE_ETHERNET * LBL_WAYS + LBL_OUT] = "program_out",
	[PROGRAMS + LBL_DEVICE_IP * LBL_WAYS + LBL_IN] = "program_in_ip",
	[PROGRAMS + LBL_DEVICE_IP * LBL_WAYS + LBL_OUT] = "program_out_ip",
	[SWEEP] = "program_sweep",
};

struct lbl_flows {
	int fds[FDS]; /* -1 if there is none */
	struct lbl_interfaces *interfaces;
};

/* ---- load ---- */

static struct lbl_flows *new_flows(void)
{
	struct lbl_flows *flows = malloc(sizeof(*flows));

	if (!flows)
		return NULL;
	memset(flows->fds, 0xff, sizeof(flows->fds)); /* no fd: -1 */
	flows->interfaces = NULL;
	return flows;
}

static int load(struct flows *skel, uint32_t ring_bytes, uint32_t max_connections)
{
	int err = bpf_map__set_max_entries(skel->maps.lbl_events, ring_bytes);

	if (!err)
		err = bpf_map__set_max_entries(skel->maps.flows_conns, max_connections);
	skel->rodata->lbl_wakeup_bytes = ring_bytes / 4;
	return err ? err : flows__load(skel);
}

/* Duplicate the fds, since the skeleton closes its own. */
static int keep(struct lbl_flows *flows, const struct flows *skel)
{
	const struct bpf_program *programs[FDS - PROGRAMS] = {
		skel->progs.lbl_flows_in,    skel->progs.lbl_flows_out,
		skel->progs.lbl_flows_in_ip, skel->progs.lbl_flows_out_ip,
		skel->progs.lbl_flows_sweep,
	};
	int err = 0, i, fd;

	for (i = 0; i < FDS && !err; i++) {
		fd = i < PROGRAMS ? bpf_object__find_map_fd_by_name(skel->obj, names[i])
				  : bpf_program__fd(programs[i - PROGRAMS]);
		err = fd < 0 ? fd : lbl_dup(fd, &flows->fds[i]);
	}
	return err;
}

static int set_up_interfaces(struct lbl_flows *flows, bool only_links)
{
	struct lbl_programs programs;

	memcpy(&programs, &flows->fds[PROGRAMS], sizeof(programs));
	return lbl_interfaces_new(&programs, only_links, &flows->interfaces);
}

int lbl_flows_open(uint32_t ring_bytes, uint32_t max_connections, bool only_links,
		   struct lbl_flows **ret)
{
	struct lbl_flows *flows;
	struct flows *skel;
	int err;

	lbl_log_block();
	if (ring_bytes < (uint32_t)getpagesize() || ring_bytes & (ring_bytes - 1) ||
	    !max_connections)
		return -EINVAL;
	flows = new_flows();
	if (!flows)
		return -ENOMEM;
	skel = flows__open();
	err = skel ? load(skel, ring_bytes, max_connections) : -errno;
	if (!err)
		err = keep(flows, skel);
	flows__destroy(skel);
	if (!err)
		err = set_up_interfaces(flows, only_links);
	if (err) {
		lbl_flows_free(flows);
		return err;
	}
	*ret = flows;
	return 0;
}

void lbl_flows_free(struct lbl_flows *flows)
{
	int i;

	if (!flows)
		return;
	lbl_interfaces_free(flows->interfaces);
	for (i = FDS - 1; i >= 0; i--)
		lbl_close(flows->fds[i]);
	free(flows);
}

/* ---- pins ---- */

const char *lbl_flows_fd_name(unsigned int which)
{
	return which < FDS ? names[which] : NULL;
}

int lbl_flows_fd(const struct lbl_flows *flows, unsigned int which)
{
	return which < FDS ? flows->fds[which] : -EINVAL;
}

int lbl_flows_link(const struct lbl_flows *flows, unsigned int which, uint32_t *id)
{
	return lbl_interfaces_link(flows->interfaces, which / LBL_WAYS, which % LBL_WAYS, id);
}

/* Check that the maps have the sizes of ours: a file of a name may be anything. */
static int check_maps(const struct lbl_flows *flows)
{
	static const uint32_t value_bytes[PROGRAMS] = {
		[RING_COUNTERS] = sizeof(struct lbl_counters),
		[NETWORKS] = sizeof(struct lbl_port_ranges),
		[CONNS] = FLOWS_CONN_BYTES,
		[COUNTERS] = sizeof(struct lbl_flows_counters),
	};
	struct bpf_map_info info;
	int i, err;

	for (i = 0; i < PROGRAMS; i++) {
		err = lbl_map_info(flows->fds[i], &info);
		if (err)
			return err;
		if (info.value_size != value_bytes[i] ||
		    strncmp(info.name, names[i], sizeof(info.name)))
			return -EMEDIUMTYPE;
	}
	return 0;
}

int lbl_flows_adopt(const int *fds, struct lbl_flows **ret)
{
	struct lbl_flows *flows = new_flows();
	int err = 0, i;

	lbl_log_block();
	if (!flows)
		return -ENOMEM;
	for (i = 0; i < FDS && !err; i++)
		err = lbl_dup(fds[i], &flows->fds[i]);
	if (!err)
		err = check_maps(flows);
	if (!err)
		err = set_up_interfaces(flows, true);
	if (err) {
		lbl_flows_free(flows);
		return err;
	}
	*ret = flows;
	return 0;
}

int lbl_flows_adopt_link(struct lbl_flows *flows, int link_fd)
{
	lbl_log_block();
	return lbl_interfaces_take(flows->interfaces, link_fd);
}

int64_t lbl_flows_max_connections(const struct lbl_flows *flows)
{
	struct bpf_map_info info;
	int err = lbl_map_info(flows->fds[CONNS], &info);

	return err ? err : (int64_t)info.max_entries;
}

/* ---- running ---- */

int lbl_flows_ring_fd(const struct lbl_flows *flows)
{
	return flows->fds[RING];
}

int lbl_flows_counters_fd(const struct lbl_flows *flows)
{
	return flows->fds[RING_COUNTERS];
}

int lbl_flows_networks_fd(const struct lbl_flows *flows)
{
	return flows->fds[NETWORKS];
}

int lbl_flows_in_fd(const struct lbl_flows *flows)
{
	return flows->fds[PROGRAMS + LBL_IN];
}

int lbl_flows_out_fd(const struct lbl_flows *flows)
{
	return flows->fds[PROGRAMS + LBL_OUT];
}

int lbl_flows_watch(struct lbl_flows *flows, const char *pattern)
{
	lbl_log_block();
	return lbl_interfaces_watch(flows->interfaces, pattern);
}

int lbl_flows_follow(struct lbl_flows *flows)
{
	lbl_log_block();
	return lbl_interfaces_follow(flows->interfaces);
}

uint32_t lbl_flows_followed(const struct lbl_flows *flows)
{
	return lbl_interfaces_count(flows->interfaces);
}

bool lbl_flows_is_linked(const struct lbl_flows *flows)
{
	uint32_t i, id;

	for (i = 0; i < lbl_interfaces_count(flows->interfaces); i++)
		if (lbl_interfaces_link(flows->interfaces, i, LBL_IN, &id) < 0)
			return false;
	return true;
}

int lbl_flows_sweep(struct lbl_flows *flows, const struct lbl_idle *idle)
{
	struct flows_sweep sweep = { .idle = *idle };
	LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = &sweep, .ctx_size_in = sizeof(sweep));
	struct bpf_map_info ring;
	int err;

	lbl_log_block();
	err = lbl_map_info(flows->fds[RING], &ring);
	if (err)
		return err;
	sweep.ring_bytes = ring.max_entries;
	if (bpf_prog_test_run_opts(flows->fds[SWEEP], &run))
		return -errno;
	return (int)sweep.is_partial;
}

int lbl_flows_counters(const struct lbl_flows *flows, struct lbl_flows_counters *ret)
{
	lbl_log_block();
	return lbl_counters_sum(flows->fds[COUNTERS], (uint64_t *)ret, sizeof(*ret) / 8);
}
