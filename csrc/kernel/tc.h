/* SPDX-License-Identifier: MIT */
/* Attach programs to an interface's TC hooks, in the network namespace of the calling thread. */
#ifndef LBL_KERNEL_TC_H
#define LBL_KERNEL_TC_H

#include <bpf/libbpf.h>

/* Where a program is attached. The same handle and priority refer to the same place. */
struct lbl_tc_place {
	int ifindex;
	enum bpf_tc_attach_point point;
	uint32_t handle;
	uint32_t priority;
};

/*
 * Attach a program, and create the clsact qdisc if missing. Replaces the program that an earlier
 * process left at this place. Returns 0 or -errno.
 */
int lbl_tc_attach(const struct lbl_tc_place *place, int prog_fd);

/*
 * Detach the program. The qdisc stays, since other programs may use it. Returns 0 or -errno; a
 * missing program, qdisc or interface is not an error.
 */
int lbl_tc_detach(const struct lbl_tc_place *place);

#endif
