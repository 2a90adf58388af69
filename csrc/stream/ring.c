// SPDX-License-Identifier: MIT
/*
 * A ring buffer's memory consists of a page with the consumer position, a page with the producer
 * position, and the data, mapped twice in a row so that no record is split. A ring in memory has
 * the same layout as the kernel's, so all other code treats both alike.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "stream/ring.h"

/* Map the page of the consumer position behind a private one. Returns its address, or NULL. */
static uint8_t *map_consumer(int fd, size_t page)
{
	uint8_t *both =
		mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int err;

	if (both == MAP_FAILED)
		return NULL;
	if (mmap(both + page, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) !=
	    MAP_FAILED)
		return both + page;
	err = errno;
	munmap(both, 2 * page);
	errno = err;
	return NULL;
}

static void unmap_consumer(void *consumer, size_t page)
{
	munmap((uint8_t *)consumer - page, 2 * page);
}

int lbl_ring_map(struct lbl_ring *ring, int fd, uint32_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *consumer, *producer;

	memset(ring, 0, sizeof(*ring));
	consumer = map_consumer(fd, page);
	if (!consumer)
		return -errno;
	producer = mmap(NULL, page + 2 * (size_t)bytes, PROT_READ, MAP_SHARED, fd, (off_t)page);
	if (producer == MAP_FAILED) {
		int err = -errno;

		unmap_consumer(consumer, page);
		return err;
	}
	*ring = (struct lbl_ring){ .consumer_pos = (uint64_t *)consumer,
				   .producer_pos = (uint64_t *)producer,
				   .data = producer + page,
				   .mask = bytes - 1,
				   .page = page };
	return 0;
}

/* Map the file, then its data once more behind it. */
static uint8_t *map_twice(int fd, size_t page, size_t bytes)
{
	uint8_t *base, *again;

	base = mmap(NULL, 2 * page + 2 * bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (base == MAP_FAILED)
		return NULL;
	again = base + 2 * page + bytes;
	if (mmap(base, 2 * page + bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) !=
		    MAP_FAILED &&
	    mmap(again, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
		 (off_t)(2 * page)) != MAP_FAILED)
		return base;
	munmap(base, 2 * page + 2 * bytes);
	return NULL;
}

int lbl_ring_memory(struct lbl_ring *ring, uint32_t bytes)
{
	int err, fd;

	memset(ring, 0, sizeof(*ring));
	ring->page = (size_t)sysconf(_SC_PAGESIZE);
	if (bytes < ring->page || bytes & (bytes - 1))
		return -EINVAL;
	fd = memfd_create("lbl-ring", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)(2 * ring->page + bytes)) == 0)
		ring->memory = map_twice(fd, ring->page, bytes);
	err = ring->memory ? 0 : -errno;
	close(fd);
	if (err)
		return err;
	ring->mask = bytes - 1;
	ring->consumer_pos = (uint64_t *)ring->memory;
	ring->producer_pos = (uint64_t *)(ring->memory + ring->page);
	ring->data = ring->memory + 2 * ring->page;
	return 0;
}

void lbl_ring_unmap(struct lbl_ring *ring)
{
	size_t bytes = ring->mask + 1;

	if (ring->memory) {
		munmap(ring->memory, 2 * ring->page + 2 * bytes);
	} else if (ring->consumer_pos) {
		unmap_consumer(ring->consumer_pos, ring->page);
		munmap(ring->producer_pos, ring->page + 2 * bytes);
	}
	memset(ring, 0, sizeof(*ring));
}

static uint32_t page_at(const struct lbl_ring *ring, uint64_t at)
{
	return LBL_RING_PAGES_BEFORE + (uint32_t)((at & ring->mask) / ring->page);
}

int lbl_ring_produce(struct lbl_ring *ring, const void *data, uint32_t len)
{
	uint64_t at = *ring->producer_pos, stride = lbl_ring_stride(len);
	uint8_t *record;

	if (!ring->memory || stride > ring->mask)
		return -EINVAL;
	if (at + stride - __atomic_load_n(ring->consumer_pos, __ATOMIC_ACQUIRE) > ring->mask + 1)
		return -ENOSPC;
	record = (uint8_t *)ring->data + (at & ring->mask);
	memcpy(record, &(struct lbl_ring_header){ .len = len, .page = page_at(ring, at) },
	       sizeof(struct lbl_ring_header));
	memcpy(record + sizeof(struct lbl_ring_header), data, len);
	__atomic_store_n(ring->producer_pos, at + stride, __ATOMIC_RELEASE);
	return 0;
}

/* Walk from `*at` to `end` or a little beyond, if the records are still there. Returns their number. */
static uint64_t walk(const struct lbl_ring *ring, uint64_t *at, uint64_t end)
{
	bool is_whole = lbl_ring_sane(ring, *at, lbl_ring_end(ring));
	uint64_t walked, n = 0;

	for (walked = 0; is_whole && *at < end && walked < LBL_WALK_MAX; walked++) {
		uint32_t len = lbl_ring_len(ring, *at);

		n += !(len & LBL_RING_DISCARDED);
		*at += lbl_ring_stride(len & LBL_RING_LEN);
	}
	return n;
}

uint64_t lbl_ring_count(const struct lbl_ring *ring, uint64_t at, uint64_t end)
{
	uint64_t n = walk(ring, &at, end);

	return at < end ? n + (end - at) / LBL_EVENT_STRIDE : n;
}

bool lbl_ring_is_boundary(const struct lbl_ring *ring, uint64_t at)
{
	uint64_t reached = ring->position;

	walk(ring, &reached, at);
	return reached <= at;
}

bool lbl_ring_is_at_record(const struct lbl_ring *ring)
{
	uint64_t at = ring->position, end = lbl_ring_end(ring), n;

	for (n = 0; at < end && n < LBL_WALK_MAX; n++) {
		const struct lbl_ring_header *header =
			(const void *)(ring->data + (at & ring->mask));

		if (READ_ONCE(&header->page) != page_at(ring, at))
			return false;
		at += lbl_ring_stride(lbl_ring_len(ring, at) & LBL_RING_LEN);
	}
	return at <= end;
}

uint64_t lbl_ring_waiting(const struct lbl_ring *ring)
{
	uint64_t end = lbl_ring_end(ring);

	return lbl_ring_sane(ring, ring->position, end) ? lbl_ring_count(ring, ring->position, end)
							: 0;
}

/* ---- stalls ---- */

static bool is_busy(const struct lbl_ring *ring)
{
	return ring->position != lbl_ring_end(ring) &&
	       lbl_ring_len(ring, ring->position & ~7ULL) & LBL_RING_BUSY;
}

void lbl_ring_look(struct lbl_ring *ring, uint64_t now)
{
	if (!is_busy(ring))
		ring->busy_since = 0;
	else if (!ring->busy_since || ring->busy_at != ring->position)
		ring->busy_since = now;
	ring->busy_at = ring->position;
}

uint64_t lbl_ring_stalled_since(const struct lbl_ring *ring, uint64_t now)
{
	bool is_same = ring->busy_since && ring->busy_at == ring->position && is_busy(ring);

	return is_same && now - ring->busy_since >= LBL_STALL_NS ? ring->busy_since : 0;
}
