// SPDX-License-Identifier: MIT
#include <bpf/libbpf.h>
#include <errno.h>

#include "kernel/tc.h"

int lbl_tc_attach(const struct lbl_tc_place *place, int prog_fd)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = place->ifindex, .attach_point = place->point);
	LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = prog_fd, .flags = BPF_TC_F_REPLACE,
		    .handle = place->handle, .priority = place->priority);
	int err = bpf_tc_hook_create(&hook);

	if (err && err != -EEXIST)
		return err;
	return bpf_tc_attach(&hook, &opts);
}

int lbl_tc_detach(const struct lbl_tc_place *place)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = place->ifindex, .attach_point = place->point);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = place->handle, .priority = place->priority);
	int err = bpf_tc_detach(&hook, &opts);

	/* Missing, in this order: the filter, the qdisc, the interface. */
	return err == -ENOENT || err == -EINVAL || err == -ENODEV ? 0 : err;
}
