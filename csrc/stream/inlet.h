/* SPDX-License-Identifier: MIT */
/* What a stream takes events from, replaced as a whole: a ring and its producers' counters. */
#ifndef LBL_STREAM_INLET_H
#define LBL_STREAM_INLET_H

#include "stream/counted.h"
#include "stream/ring.h"

struct lbl_inlet {
	struct lbl_ring ring;
	struct lbl_counted *counters; /* NULL if unknown, or of a ring in memory */
	int fd; /* of the ring; -1 in memory */
	uint32_t map_id; /* of the ring */
};

/*
 * Map the BPF ring buffer `ring_fd` and open its counters `counters_fd`, or none for -1. Both fds
 * are duplicated. Counters that may not be read are taken for none. -EINVAL if a map has another
 * type, or another -errno; then nothing is open.
 */
int lbl_inlet_open(int ring_fd, int counters_fd, struct lbl_inlet *ret);
/* Make a ring of `bytes` in memory. -EINVAL, or another -errno. */
int lbl_inlet_memory(uint32_t bytes, struct lbl_inlet *ret);
/* Legal on a zeroed struct whose fd is -1. */
void lbl_inlet_close(struct lbl_inlet *inlet);

#endif
