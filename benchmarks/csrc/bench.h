/* SPDX-License-Identifier: MIT */
/*
 * What the benchmarks need of C: rings that are filled by BPF programs, the floors, paced
 * producers, and timing without Python in between. Functions return a count or a negative errno.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../bpf/events.h"

/* cdef: begin */

/* A BPF ring buffer and the programs that write to it, or memory that looks the same. */
struct bench_ring;

int bench_ring_open(uint32_t bytes, struct bench_ring **ret);
int bench_ring_memory(uint32_t bytes, struct bench_ring **ret);
void bench_ring_free(struct bench_ring *ring);
int bench_ring_fd(const struct bench_ring *ring);
int bench_ring_counters_fd(const struct bench_ring *ring);

enum bench_producer {
	BENCH_FILL, /* no wakeups, no clock */
	BENCH_PRODUCE, /* lbl_conn_closed() */
	BENCH_WAKING, /* the kernel's own choice of wakeups */
	BENCH_NOWHERE, /* what the clock and the event itself take */
};

/* Produce the events. Returns how many the ring had room for; spec->spent_ns says what it took. */
int64_t bench_produce(struct bench_ring *ring, enum bench_producer how, struct bench_spec *spec);

/* The same events in an array. */
void bench_events(const struct bench_spec *spec, struct lbl_event *ret);

/* The same events by a function like lbl_stream_produce(). */
int64_t bench_produce_by(int (*produce)(void *, const void *, uint32_t), void *stream,
			 const struct bench_spec *spec);

/*
 * Produce bursts of spec->n events at `per_second` for `seconds`, busy-waiting in between, and
 * catching up if late. Returns the events; spec->spent_ns is the sum.
 */
int64_t bench_pace(struct bench_ring *ring, enum bench_producer how, struct bench_spec *spec,
		   double per_second, double seconds);

/* The memory floor: look at one line of every record, and release them. */
int64_t bench_ring_read(struct bench_ring *ring);

/*
 * The counting floor: count each event in two cache lines of its backend's, as large and as far
 * apart as lblatency's, which are known beforehand: no decoding, no search, no check.
 */
struct bench_counting;

/* For up to `n_max` events that wait in the ring. */
int bench_counting_new(struct bench_ring *ring, uint32_t backends, uint32_t n_max,
		       struct bench_counting **ret);
void bench_counting_free(struct bench_counting *counting);

/* Find out where the spec's events will be counted; the ring is filled with them next. */
void bench_counting_prepare(struct bench_counting *counting, const struct bench_spec *spec);

/* Read each record, count it, and release all. */
int64_t bench_counting_drain(struct bench_counting *counting);

/* Call `drain`, and say how long it took. */
int64_t bench_timed(int64_t (*drain)(void *), void *arg, uint64_t *ret_ns);

/* Fill with the spec's events and call `drain`, n times; how long each call took. */
int64_t bench_timed_each(struct bench_ring *ring, const struct bench_spec *spec,
			 int64_t (*drain)(void *), void *arg, size_t n, uint64_t *ret_ns);

/* The ring through libbpf, which calls bench_seen() for each event. */
int64_t bench_ring_consume(struct bench_ring *ring);

enum bench_program { BENCH_PACKET, BENCH_PACKET_CLOSED, BENCH_PACKET_CLOSED_STAMPED };

/* Run a TC program on a packet `repeat` times. Returns the ns of one. */
int bench_packet(struct bench_ring *ring, enum bench_program program, int repeat);

/* cdef: end */

#endif
