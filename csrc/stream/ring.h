/* SPDX-License-Identifier: MIT */
/*
 * Ring buffers, in the kernel's layout: an 8-byte header per record, then its data, padded to 8
 * bytes.
 */
#ifndef LBL_RING_H
#define LBL_RING_H

#include "lbl_abi.h"
#include "base/util.h"

#define LBL_RING_BUSY 0x80000000U /* reserved, not yet submitted */
#define LBL_RING_DISCARDED 0x40000000U
#define LBL_RING_LEN 0x3fffffffU

enum { LBL_WALK_MAX = 1 << 20 };

/* In the kernel, a ring's own fields and its two positions lie before its data. */
enum { LBL_RING_PAGES_BEFORE = 3 };

/* A producer fills in a record in microseconds, and may be preempted meanwhile. */
enum { LBL_STALL_NS = 1000000000 };

struct lbl_ring_header {
	uint32_t len;
	uint32_t
		page; /* of the header, as bpf_ringbuf_rec_pg_off() in kernel/bpf/ringbuf.c counts */
};

_Static_assert(LBL_EVENT_STRIDE == sizeof(struct lbl_ring_header) + LBL_EVENT_BYTES,
	       "LBL_EVENT_STRIDE is a record of an event");

/*
 * All who may consume a BPF ring buffer may write its consumer position, so ours is kept here too.
 * The page before that of the consumer position is private to the process; see stream/claim.h.
 */
struct lbl_ring {
	uint64_t *consumer_pos;
	uint64_t *producer_pos;
	const uint8_t *data;
	uint64_t mask;
	uint64_t position; /* up to which we have consumed */
	uint64_t busy_at,
		busy_since; /* a record that is not submitted, first seen then; ns, 0 = none */
	uint8_t *memory; /* writable mapping of a ring in memory; else NULL */
	size_t page;
};

/* Map a BPF ring buffer of `bytes`. Returns 0 or -errno. */
int lbl_ring_map(struct lbl_ring *ring, int fd, uint32_t bytes);
/* Create a ring in memory. -EINVAL unless `bytes` is a power of two and at least a page. */
int lbl_ring_memory(struct lbl_ring *ring, uint32_t bytes);
/* Unmap a ring of either kind. Legal on a zeroed struct. */
void lbl_ring_unmap(struct lbl_ring *ring);

/*
 * Append a record. The caller excludes other producers. -ENOSPC if the ring is full, -EINVAL if
 * `len` can never fit.
 */
int lbl_ring_produce(struct lbl_ring *ring, const void *data, uint32_t len);

/*
 * Return the number of records from position `at` to `end`. Beyond LBL_WALK_MAX records, and where
 * newer records lie over them, the number is estimated as if they were 56-byte events.
 */
uint64_t lbl_ring_count(const struct lbl_ring *ring, uint64_t at, uint64_t end);

/*
 * Return whether a record begins at `at`, ahead of our position. True also where that cannot be told:
 * after LBL_WALK_MAX records, and where newer ones lie over them.
 */
bool lbl_ring_is_boundary(const struct lbl_ring *ring, uint64_t at);

/*
 * Return whether records lie from our position to the end, as their headers' pages and lengths say.
 * Looks at up to LBL_WALK_MAX of them. True if there is none.
 */
bool lbl_ring_is_at_record(const struct lbl_ring *ring);

/* Return the number of records that we have not consumed. */
uint64_t lbl_ring_waiting(const struct lbl_ring *ring);

/*
 * Look whether our next record is reserved and not submitted; `now` in ns. A record that stays so
 * keeps all later ones back.
 */
void lbl_ring_look(struct lbl_ring *ring, uint64_t now);

/* Return since when our next record is so, ns; 0 if it is not, or for less than LBL_STALL_NS. */
uint64_t lbl_ring_stalled_since(const struct lbl_ring *ring, uint64_t now);

/* Return the number of bytes that the producer sees as not consumed. */
static inline uint64_t lbl_ring_fill(const struct lbl_ring *ring)
{
	return __atomic_load_n(ring->producer_pos, __ATOMIC_ACQUIRE) -
	       __atomic_load_n(ring->consumer_pos, __ATOMIC_ACQUIRE);
}

/* Return whether the positions are valid; the other process may have written anything there. */
static inline bool lbl_ring_sane(const struct lbl_ring *ring, uint64_t at, uint64_t end)
{
	return end - at <= ring->mask + 1 && !(at & 7);
}

/* Return the producer position. Pairs with the producer's reservation. */
static inline uint64_t lbl_ring_end(const struct lbl_ring *ring)
{
	return __atomic_load_n(ring->producer_pos, __ATOMIC_ACQUIRE);
}

static inline uint64_t lbl_ring_stride(uint32_t len)
{
	return (len + sizeof(struct lbl_ring_header) + 7) & ~7ULL;
}

/* Return a record's length and flags. Pairs with the producer's commit. */
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
