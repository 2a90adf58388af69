// SPDX-License-Identifier: MIT
/* What a drain cannot do without: reading every record, and counting in memory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bench.h"
#include "ring.h"

enum {
	AHEAD = 32, /* events between asking for a line and adding to it */
	HUGE = 2 << 20,
	/* lblatency's row of counters: a line per octave, of 64 steps each, from 1 us on */
	OCTAVES = 45,
	FIRST_OCTAVE = 10,
	ROW = OCTAVES * LINE,
};

/* As large as struct lbl_hot. */
struct hot {
	uint64_t sum, unused[7];
};

struct bench_counting {
	struct bench_ring *ring;
	struct hot *hot;
	uint8_t *rows;
	struct place {
		uint32_t backend, counter;
	} * places; /* of the events that wait, and AHEAD more */
};

int64_t bench_ring_read(struct bench_ring *ring)
{
	uint64_t at = *ring->consumer, end = __atomic_load_n(ring->producer, __ATOMIC_ACQUIRE);
	int64_t n = (int64_t)((end - at) / LINE);
	uint64_t sum = 0;

	for (; at != end; at += LINE)
		sum += *(const uint64_t *)(ring->data + (at & ring->mask));
	asm volatile("" : : "r"(sum)); /* it is needed */
	__atomic_store_n(ring->consumer, end, __ATOMIC_RELEASE);
	return n;
}

/* Zeroed, so that all of it is there, in huge pages if there are any. */
static void *table(size_t bytes)
{
	void *p;

	bytes = (bytes + HUGE - 1) & ~(size_t)(HUGE - 1);
	p = aligned_alloc(HUGE, bytes);
	if (!p)
		return NULL;
	madvise(p, bytes, MADV_HUGEPAGE);
	return memset(p, 0, bytes);
}

int bench_counting_new(struct bench_ring *ring, uint32_t backends, uint32_t n_max,
		       struct bench_counting **ret)
{
	struct bench_counting *counting = calloc(1, sizeof(*counting));

	if (!counting)
		return -ENOMEM;
	counting->ring = ring;
	counting->hot = table(backends * sizeof(*counting->hot));
	counting->rows = table((size_t)backends * ROW);
	counting->places = calloc(n_max + AHEAD, sizeof(*counting->places));
	*ret = counting;
	return counting->hot && counting->rows && counting->places ? 0 : -ENOMEM;
}

void bench_counting_free(struct bench_counting *counting)
{
	free(counting->places);
	free(counting->rows);
	free(counting->hot);
	free(counting);
}

static uint32_t slot_of(uint64_t ns)
{
	uint32_t octave = 63 - (uint32_t)__builtin_clzll(ns);

	return (octave - FIRST_OCTAVE) % OCTAVES * LINE + ((ns << 6 >> octave) & (LINE - 1));
}

void bench_counting_prepare(struct bench_counting *counting, const struct bench_spec *spec)
{
	uint32_t i;

	for (i = 0; i < spec->n; i++) {
		struct lbl_event event;
		uint32_t backend;

		bench_event(spec, i, &event);
		backend = event.addr[13] << 16 | event.addr[14] << 8 | event.addr[15];
		counting->places[i] = (struct place){
			.backend = backend,
			.counter = backend * ROW + slot_of(event.timestamp_ns - event.created_ns),
		};
	}
}

int64_t bench_counting_drain(struct bench_counting *counting)
{
	struct bench_ring *ring = counting->ring;
	uint64_t at = *ring->consumer, end = __atomic_load_n(ring->producer, __ATOMIC_ACQUIRE);
	const struct place *place = counting->places;
	struct hot *hot = counting->hot;
	uint8_t *rows = counting->rows;
	uint64_t sum = 0;

	for (; at != end; at += LINE, place++) {
		__builtin_prefetch(&hot[place[AHEAD].backend], 1);
		__builtin_prefetch(&rows[place[AHEAD].counter], 1);
		sum += *(const uint64_t *)(ring->data + (at & ring->mask));
		hot[place->backend].sum++;
		rows[place->counter]++;
	}
	asm volatile("" : : "r"(sum));
	__atomic_store_n(ring->consumer, end, __ATOMIC_RELEASE);
	return place - counting->places;
}
