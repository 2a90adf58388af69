// SPDX-License-Identifier: MIT
#include <bpf/bpf.h>
#include <errno.h>

#include "kernel/tcx.h"

/* Of enum bpf_attach_type and bpf_link_create(), which older headers lack. */
enum { TCX_INGRESS = 46, TCX_EGRESS = 47, BEFORE = 1 << 3 };

int lbl_tcx_attach(int ifindex, enum bpf_tc_attach_point point, int prog_fd)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = BEFORE);
	int type = point == BPF_TC_INGRESS ? TCX_INGRESS : TCX_EGRESS;
	int fd = bpf_link_create(prog_fd, ifindex, (enum bpf_attach_type)type, &opts);

	return fd < 0 ? -errno : fd;
}
