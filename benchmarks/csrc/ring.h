/* SPDX-License-Identifier: MIT */
/* What a ring is to those who fill and drain it. */
#ifndef BENCH_RING_H
#define BENCH_RING_H

#include <stdint.h>

enum { LINE = 64 }; /* an event with its header, and a cache line */

struct bench_ring {
	struct filler *filler; /* NULL for memory */
	struct ring_buffer *libbpf;
	uint64_t *consumer, *producer;
	uint8_t *data;
	uint64_t mask;
};

#endif
