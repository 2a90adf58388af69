// SPDX-License-Identifier: MIT
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "filler.skel.h"
#include "ring.h"

static int bench_seen(void *ctx, void *data, size_t len); /* Python's; cffi defines it */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* ---- rings ---- */

static int map_ring(struct bench_ring *ring, uint32_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	int fd = bench_ring_fd(ring);
	uint8_t *producer;

	ring->mask = bytes - 1;
	ring->consumer = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	producer = mmap(NULL, page + 2 * (size_t)bytes, PROT_READ, MAP_SHARED, fd, (off_t)page);
	if (ring->consumer == MAP_FAILED || producer == MAP_FAILED)
		return -errno;
	ring->producer = (uint64_t *)producer;
	ring->data = producer + page;
	return 0;
}

static int load_filler(struct bench_ring *ring, uint32_t bytes)
{
	libbpf_set_print(NULL); /* the errno says enough */
	ring->filler = filler__open();
	if (!ring->filler)
		return -errno;
	bpf_map__set_max_entries(ring->filler->maps.lbl_events, bytes);
	ring->filler->rodata->lbl_wakeup_bytes = bytes / 4;
	return filler__load(ring->filler);
}

int bench_ring_open(uint32_t bytes, struct bench_ring **ret)
{
	struct bench_ring *ring = calloc(1, sizeof(*ring));
	int err;

	if (!ring)
		return -ENOMEM;
	err = load_filler(ring, bytes);
	if (!err)
		err = map_ring(ring, bytes);
	if (err)
		bench_ring_free(ring);
	else
		*ret = ring;
	return err;
}

int bench_ring_memory(uint32_t bytes, struct bench_ring **ret)
{
	struct bench_ring *ring = calloc(1, sizeof(*ring));

	if (!ring)
		return -ENOMEM;
	ring->data = aligned_alloc(LINE, bytes);
	ring->consumer = calloc(1, sizeof(uint64_t));
	ring->producer = calloc(1, sizeof(uint64_t));
	ring->mask = bytes - 1;
	*ret = ring;
	return ring->data && ring->consumer && ring->producer ? 0 : -ENOMEM;
}

/* Mappings end with the process: there are few rings, each for the whole run. */
void bench_ring_free(struct bench_ring *ring)
{
	ring_buffer__free(ring->libbpf);
	filler__destroy(ring->filler);
	free(ring);
}

int bench_ring_fd(const struct bench_ring *ring)
{
	return bpf_map__fd(ring->filler->maps.lbl_events);
}

int bench_ring_counters_fd(const struct bench_ring *ring)
{
	return bpf_map__fd(ring->filler->maps.lbl_counters);
}

/* ---- producing ---- */

static const struct bpf_program *producer_of(const struct bench_ring *ring, enum bench_producer how)
{
	switch (how) {
	case BENCH_PRODUCE:
		return ring->filler->progs.produce;
	case BENCH_WAKING:
		return ring->filler->progs.produce_waking;
	case BENCH_NOWHERE:
		return ring->filler->progs.produce_nowhere;
	default:
		return ring->filler->progs.fill;
	}
}

static int64_t run_once(int fd, struct bench_spec *spec)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = spec, .ctx_size_in = sizeof(*spec));

	return bpf_prog_test_run_opts(fd, &opts) ? -errno : (int64_t)opts.retval;
}

static int64_t write_to_memory(void *arg, const void *event)
{
	struct bench_ring *ring = arg;
	uint8_t *record = ring->data + (*ring->producer & ring->mask);

	memcpy(record, &(uint64_t){ LBL_EVENT_BYTES }, sizeof(uint64_t));
	memcpy(record + sizeof(uint64_t), event, LBL_EVENT_BYTES);
	*ring->producer += LINE;
	return 0;
}

int64_t bench_produce(struct bench_ring *ring, enum bench_producer how, struct bench_spec *spec)
{
	struct bench_spec part = *spec;
	int64_t total = 0, got;
	uint32_t i;

	spec->spent_ns = 0;
	for (i = 0; i < spec->n && !ring->filler; i++, total++) {
		struct lbl_event event;

		bench_event(spec, i, &event);
		write_to_memory(ring, &event);
	}
	while (i < spec->n) {
		part.first = spec->first + i;
		part.n = spec->n - i < BENCH_EVENTS_MAX ? spec->n - i : BENCH_EVENTS_MAX;
		got = run_once(bpf_program__fd(producer_of(ring, how)), &part);
		if (got < 0)
			return got;
		total += got;
		spec->spent_ns += part.spent_ns;
		i += part.n;
	}
	return total;
}

void bench_events(const struct bench_spec *spec, struct lbl_event *ret)
{
	uint32_t i;

	for (i = 0; i < spec->n; i++)
		bench_event(spec, i, &ret[i]);
}

int64_t bench_produce_by(int (*produce)(void *, const void *, uint32_t), void *stream,
			 const struct bench_spec *spec)
{
	struct lbl_event event;
	uint32_t i;

	for (i = 0; i < spec->n; i++) {
		bench_event(spec, i, &event);
		if (produce(stream, &event, sizeof(event)))
			break;
	}
	return i;
}

int64_t bench_pace(struct bench_ring *ring, enum bench_producer how, struct bench_spec *spec,
		   double per_second, double seconds)
{
	uint64_t start = now_ns(), spent = 0, total = 0;
	double due = 0;

	for (; due < seconds * 1e9; due = (double)total * 1e9 / per_second) {
		int64_t got;

		while ((double)(now_ns() - start) < due)
			; /* reading the clock is pause enough */
		got = bench_produce(ring, how, spec);
		if (got < 0)
			return got;
		spent += spec->spent_ns;
		spec->first += spec->n;
		total += spec->n;
	}
	spec->spent_ns = spent;
	return (int64_t)total;
}

/* ---- consuming ---- */

int64_t bench_timed(int64_t (*drain)(void *), void *arg, uint64_t *ret_ns)
{
	uint64_t start = now_ns();
	int64_t n = drain(arg);

	*ret_ns = now_ns() - start;
	return n;
}

int64_t bench_timed_each(struct bench_ring *ring, const struct bench_spec *spec,
			 int64_t (*drain)(void *), void *arg, size_t n, uint64_t *ret_ns)
{
	struct bench_spec part = *spec;
	int64_t total = 0, got;
	size_t i;

	for (i = 0; i < n; i++, part.first += part.n) {
		got = bench_produce(ring, BENCH_FILL, &part);
		if (got < 0)
			return got;
		total += bench_timed(drain, arg, &ret_ns[i]);
	}
	return total;
}

int64_t bench_ring_consume(struct bench_ring *ring)
{
	if (!ring->libbpf)
		ring->libbpf = ring_buffer__new(bench_ring_fd(ring), bench_seen, NULL, NULL);
	return ring->libbpf ? ring_buffer__consume(ring->libbpf) : -errno;
}

int bench_packet(struct bench_ring *ring, enum bench_program program, int repeat)
{
	const struct bpf_program *const programs[] = {
		[BENCH_PACKET] = ring->filler->progs.packet,
		[BENCH_PACKET_CLOSED] = ring->filler->progs.packet_closed,
		[BENCH_PACKET_CLOSED_STAMPED] = ring->filler->progs.packet_closed_stamped,
	};
	uint8_t frame[LINE] = { 0 };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = sizeof(frame),
		    .repeat = repeat);

	if (bpf_prog_test_run_opts(bpf_program__fd(programs[program]), &opts))
		return -errno;
	return (int)opts.duration;
}
