/* SPDX-License-Identifier: MIT */
/* Programs at an interface's TC hooks, in the thread's network namespace. */
#ifndef LBL_KERNEL_TC_H
#define LBL_KERNEL_TC_H

#include <bpf/libbpf.h>

/* The place of a program. Who comes back with the same handle and priority finds it again. */
struct lbl_tc_place {
	int ifindex;
	enum bpf_tc_attach_point point;
	uint32_t handle;
	uint32_t priority;
};

/* Attach, making the clsact qdisc if missing; replaces what an earlier program left at the place. */
int lbl_tc_attach(const struct lbl_tc_place *place, int prog_fd);

/*
 * Detach. The qdisc stays, for others may use it by now. It is no error if the program, the qdisc
 * or the interface is gone.
 */
int lbl_tc_detach(const struct lbl_tc_place *place);

#endif
