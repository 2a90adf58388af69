/* SPDX-License-Identifier: MIT */
/* TC programs as links, which end with their last fd, however that comes. Since Linux 6.6. */
#ifndef LBL_KERNEL_TCX_H
#define LBL_KERNEL_TCX_H

#include <bpf/libbpf.h>

/*
 * Attach a program to an interface of the thread's network namespace, before all other programs and
 * filters there. Returns the link's fd or -errno; -EINVAL if the kernel has no such links.
 */
int lbl_tcx_attach(int ifindex, enum bpf_tc_attach_point point, int prog_fd);

struct lbl_tcx_info {
	uint32_t id, prog_id;
	int ifindex; /* in the interface's namespace; 0 if it has gone */
	enum bpf_tc_attach_point point;
};

/* Read what such a link is. -EMEDIUMTYPE if the fd is something else. */
int lbl_tcx_info(int fd, struct lbl_tcx_info *ret);

#endif
