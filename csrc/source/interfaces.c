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
#include "kernel/netns.h"
#include "kernel/pins.h"
#include "kernel/tc.h"
#include "kernel/tcx.h"
#include "source/interfaces.h"

static const enum bpf_tc_attach_point POINTS[LBL_WAYS] = {
	[LBL_IN] = BPF_TC_INGRESS,
	[LBL_OUT] = BPF_TC_EGRESS,
};

/* What there is instead of the fd of a link. */
enum { FILTER = -1, NOTHING = -2 };

/* An interface that the programs are attached to. */
struct attached {
	int ifindex;
	int links[LBL_WAYS];
	uint32_t ids[LBL_WAYS]; /* of links */
};

struct lbl_interfaces {
	struct lbl_programs programs;
	bool only_links;
	int netns;
	char **patterns;
	size_t n_patterns;
	struct attached *attached;
	size_t n_attached;
};

int lbl_interfaces_new(const struct lbl_programs *programs, bool only_links,
		       struct lbl_interfaces **ret)
{
	struct lbl_interfaces *made = calloc(1, sizeof(*made));
	int netns;

	if (!made)
		return -ENOMEM;
	netns = lbl_netns_current();
	if (netns < 0) {
		free(made);
		return netns;
	}
	made->programs = *programs;
	made->only_links = only_links;
	made->netns = netns;
	*ret = made;
	return 0;
}

/* ---- one interface; the caller is in its namespace ---- */

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

static int attach_way(const struct lbl_interfaces *set, struct attached *to, int device, int way)
{
	int prog_fd = set->programs.fds[device][way];
	struct lbl_tc_place place = make_place(to->ifindex, way);
	struct lbl_tcx_info info;
	int fd = lbl_tcx_attach(to->ifindex, POINTS[way], prog_fd), err;

	if (fd == -EINVAL && set->only_links)
		return -EOPNOTSUPP;
	if (fd == -EINVAL) {
		err = lbl_tc_attach(&place, prog_fd);
		to->links[way] = err ? NOTHING : FILTER;
		return err;
	}
	if (fd < 0)
		return fd;
	err = lbl_tcx_info(fd, &info);
	if (err) {
		close(fd);
		return err;
	}
	to->links[way] = fd;
	to->ids[way] = info.id;
	return 0;
}

static void detach_way(const struct attached *from, int way)
{
	struct lbl_tc_place place = make_place(from->ifindex, way);

	if (from->links[way] == FILTER)
		lbl_tc_detach(&place);
	else
		lbl_close(from->links[way]);
}

static void detach(const struct attached *from)
{
	detach_way(from, LBL_IN);
	detach_way(from, LBL_OUT);
}

/* Add an entry to which nothing is attached. Returns it, or NULL if there is no memory. */
static struct attached *add(struct lbl_interfaces *set, int ifindex)
{
	struct attached *grown;

	grown = realloc(set->attached, (set->n_attached + 1) * sizeof(*grown));
	if (!grown)
		return NULL;
	set->attached = grown;
	grown[set->n_attached] =
		(struct attached){ .ifindex = ifindex, .links = { NOTHING, NOTHING } };
	return &grown[set->n_attached++];
}

static struct attached *find(const struct lbl_interfaces *set, int ifindex)
{
	size_t i;

	for (i = 0; i < set->n_attached; i++)
		if (set->attached[i].ifindex == ifindex)
			return &set->attached[i];
	return NULL;
}

/* Attach what is not attached. */
static int attach(struct lbl_interfaces *set, int ifindex, int device)
{
	struct attached *to = find(set, ifindex);
	int err = 0, way;

	if (!to)
		to = add(set, ifindex);
	if (!to)
		return -ENOMEM;
	for (way = 0; way < LBL_WAYS && !err; way++)
		if (to->links[way] == NOTHING)
			err = attach_way(set, to, device, way);
	if (err) {
		detach(to);
		*to = set->attached[--set->n_attached];
	}
	return err;
}

/* Return what the device's packets begin with, enum lbl_device, or -errno. */
static int device_of(const char *name)
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
		return LBL_DEVICE_ETHERNET;
	case ARPHRD_NONE:
	case ARPHRD_PPP:
	case ARPHRD_RAWIP:
	case ARPHRD_TUNNEL:
	case ARPHRD_TUNNEL6:
	case ARPHRD_SIT:
		return LBL_DEVICE_IP;
	default:
		return -EPFNOSUPPORT;
	}
}

/* ---- links of an earlier set ---- */

static bool is_program(int fd, uint32_t id)
{
	struct bpf_prog_info info = { 0 };
	uint32_t bytes = sizeof(info);

	return !bpf_obj_get_info_by_fd(fd, &info, &bytes) && info.id == id;
}

int lbl_interfaces_take(struct lbl_interfaces *set, int link_fd)
{
	struct lbl_tcx_info info;
	struct attached *to;
	int err = lbl_tcx_info(link_fd, &info), way, copy;

	if (err)
		return err;
	way = info.point == BPF_TC_INGRESS ? LBL_IN : LBL_OUT;
	if (!is_program(set->programs.fds[LBL_DEVICE_ETHERNET][way], info.prog_id) &&
	    !is_program(set->programs.fds[LBL_DEVICE_IP][way], info.prog_id))
		return -EMEDIUMTYPE;
	if (!info.ifindex)
		return -ESTALE;
	err = lbl_dup(link_fd, &copy);
	if (err)
		return err;
	to = find(set, info.ifindex);
	if (!to)
		to = add(set, info.ifindex);
	if (!to) {
		close(copy);
		return -ENOMEM;
	}
	lbl_close(to->links[way]);
	to->links[way] = copy;
	to->ids[way] = info.id;
	return 0;
}

/* ---- all interfaces ---- */

static bool is_wanted(const struct lbl_interfaces *set, const char *name)
{
	size_t i;

	for (i = 0; i < set->n_patterns; i++)
		if (!fnmatch(set->patterns[i], name, 0))
			return true;
	return false;
}

/* Return whether a link is still at its interface: another may have come with its number. */
static bool is_alive(int link)
{
	struct lbl_tcx_info info;

	return link < 0 || (!lbl_tcx_info(link, &info) && info.ifindex);
}

static bool is_whole(const struct attached *attached)
{
	return attached && attached->links[LBL_IN] != NOTHING &&
	       attached->links[LBL_OUT] != NOTHING;
}

static bool goes_on(const struct lbl_interfaces *set, const struct attached *attached,
		    const struct if_nameindex *all)
{
	for (; all->if_index; all++)
		if ((int)all->if_index == attached->ifindex)
			return is_wanted(set, all->if_name) && is_alive(attached->links[LBL_IN]) &&
			       is_alive(attached->links[LBL_OUT]);
	return false;
}

static int follow(struct lbl_interfaces *set)
{
	struct if_nameindex *all = if_nameindex(), *each;
	int first = 0, device, err;
	size_t i;

	if (!all)
		return -errno;
	for (i = set->n_attached; i-- > 0;) {
		if (goes_on(set, &set->attached[i], all))
			continue;
		detach(&set->attached[i]);
		set->attached[i] = set->attached[--set->n_attached];
	}
	for (each = all; each->if_index; each++) {
		if (!is_wanted(set, each->if_name) || is_whole(find(set, (int)each->if_index)))
			continue;
		device = device_of(each->if_name);
		if (device < 0)
			continue; /* of a pattern; or it has gone */
		err = attach(set, (int)each->if_index, device);
		/* It may have gone meanwhile. */
		if (err && err != -ENODEV && !first)
			first = err;
	}
	if_freenameindex(all);
	return first;
}

int lbl_interfaces_follow(struct lbl_interfaces *set)
{
	int home = lbl_netns_enter(set->netns), rc;

	if (home < 0)
		return home;
	rc = follow(set);
	lbl_netns_leave(home);
	return rc;
}

/* Return 0 if the interface can be attached to; one of a pattern may come later. */
static int check_name(const struct lbl_interfaces *set, const char *pattern)
{
	int home, device;

	if (strpbrk(pattern, "*?["))
		return 0;
	home = lbl_netns_enter(set->netns);
	if (home < 0)
		return home;
	device = device_of(pattern);
	lbl_netns_leave(home);
	return device < 0 ? device : 0;
}

int lbl_interfaces_watch(struct lbl_interfaces *set, const char *pattern)
{
	char **grown, *copy;
	int err = check_name(set, pattern);

	if (err)
		return err;
	grown = realloc(set->patterns, (set->n_patterns + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	set->patterns = grown;
	copy = strdup(pattern);
	if (!copy)
		return -ENOMEM;
	grown[set->n_patterns++] = copy;
	return 0;
}

uint32_t lbl_interfaces_count(const struct lbl_interfaces *set)
{
	return (uint32_t)set->n_attached;
}

int lbl_interfaces_link(const struct lbl_interfaces *set, uint32_t i, enum lbl_way way,
			uint32_t *id)
{
	if (i >= set->n_attached || set->attached[i].links[way] < 0)
		return -ENOENT;
	*id = set->attached[i].ids[way];
	return set->attached[i].links[way];
}

void lbl_interfaces_free(struct lbl_interfaces *set)
{
	int home;

	if (!set)
		return;
	home = set->n_attached ? lbl_netns_enter(set->netns) : -1;
	if (home >= 0) {
		while (set->n_attached)
			detach(&set->attached[--set->n_attached]);
		lbl_netns_leave(home);
	}
	while (set->n_patterns)
		free(set->patterns[--set->n_patterns]);
	free(set->patterns);
	free(set->attached);
	lbl_close(set->netns);
	free(set);
}
