/* SPDX-License-Identifier: MIT */
/* Try what a container or an unprivileged user may be denied, whatever capabilities say. */
#ifndef LBL_KERNEL_PROBE_H
#define LBL_KERNEL_PROBE_H

/* cdef: begin */
enum lbl_probe {
	LBL_PROBE_PINS, /* open a pinned map */
	LBL_PROBE_IDS, /* look a map up by its id */
	LBL_PROBE_MAPS, /* make a ring buffer and an array */
	LBL_PROBE_PROGRAMS, /* load a TC program that returns 0 */
};

/* Make the system calls, and undo what they did. Returns 0 or -errno; -EPERM if it is denied. */
int lbl_probe(enum lbl_probe what);
/* cdef: end */

#endif
