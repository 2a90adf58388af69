/* SPDX-License-Identifier: MIT */
/* The ring buffer's records: an 8-byte header, the payload, and padding to 8 bytes. */
#ifndef LBL_RING_H
#define LBL_RING_H

#include "lbl_abi.h"
#include "base/util.h"

#define LBL_RING_BUSY 0x80000000U /* reserved, not yet submitted */
#define LBL_RING_DISCARDED 0x40000000U
#define LBL_RING_LEN 0x3fffffffU

enum { LBL_WALK_MAX = 4096 };

struct lbl_ring_header {
	uint32_t len;
	uint32_t page;
};

_Static_assert(LBL_EVENT_STRIDE == sizeof(struct lbl_ring_header) + LBL_EVENT_BYTES,
	       "LBL_EVENT_STRIDE is a record of an event");

struct lbl_ring {
	uint64_t *consumer_pos;
	uint64_t *producer_pos;
	const uint8_t *data;
	uint64_t mask;
	uint8_t *memory; /* of a ring in memory: the mapping that can be written */
	size_t page;
};

/* Map a BPF ring buffer of `bytes`. */
int lbl_ring_map(struct lbl_ring *ring, int fd, uint32_t bytes);
/* Make one in memory. -EINVAL unless `bytes` is a power of two and at least a page. */
int lbl_ring_memory(struct lbl_ring *ring, uint32_t bytes);
/* Undo either. */
void lbl_ring_unmap(struct lbl_ring *ring);

/* One producer at a time. -ENOSPC if the ring is full, -EINVAL if it could never hold `len`. */
int lbl_ring_produce(struct lbl_ring *ring, const void *data, uint32_t len);

/* Records that wait to be consumed; past LBL_WALK_MAX, as if the rest were 56-byte events. */
uint64_t lbl_ring_waiting(const struct lbl_ring *ring);

/* Bytes that wait to be consumed. */
static inline uint64_t lbl_ring_fill(const struct lbl_ring *ring)
{
	return __atomic_load_n(ring->producer_pos, __ATOMIC_ACQUIRE) -
	       __atomic_load_n(ring->consumer_pos, __ATOMIC_ACQUIRE);
}

/* Whether these positions, of which one is the other process's to write, can be a ring's. */
static inline bool lbl_ring_sane(const struct lbl_ring *ring, uint64_t at, uint64_t end)
{
	return end - at <= ring->mask + 1 && !(at & 7);
}

static inline uint64_t lbl_ring_stride(uint32_t len)
{
	return (len + sizeof(struct lbl_ring_header) + 7) & ~7ULL;
}

/* The length of a record, with its flags. Pairs with the producer's commit. */
static inline uint32_t lbl_record_len(const uint8_t *header)
{
	return __atomic_load_n((const uint32_t *)(const void *)header, __ATOMIC_ACQUIRE);
}

static inline uint32_t lbl_ring_len(const struct lbl_ring *ring, uint64_t at)
{
	return lbl_record_len(ring->data + (at & ring->mask));
}

static inline const void *lbl_ring_data(const struct lbl_ring *ring, uint64_t at)
{
	return ring->data + (at & ring->mask) + sizeof(struct lbl_ring_header);
}

#endif
