/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The traffic that is measured: the same events for the same numbers, in the kernel and out of it. */
#ifndef BENCH_EVENTS_H
#define BENCH_EVENTS_H

#include "../../bpf/include/lbl_abi.h"

/* cdef: begin */
enum { BENCH_EVENTS_MAX = 4000 }; /* a run of the BPF program */

/* Which events: number `first` to `first + n` of those that the rest describes. */
struct bench_spec {
	__u64 seed;
	__u64 spent_ns; /* out: what the producer took for them */
	__u32 first, n;
	__u32 backends;
	__u32 with_ids; /* whether they tell the backend's index */
	__u32 in_turn; /* one backend after the other, not at random */
	__u32 with_opened; /* whether every other event, at random, opens a connection */
	__u32 octave, octaves; /* lifetimes are 2^octave ns to 2^(octave + octaves), log-uniform */
	__u32 all_latencies; /* whether connect, first byte and closing are drawn at random too */
};
/* cdef: end */

static inline __attribute__((always_inline)) __u64 bench_mix(__u64 x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

/* Log-uniform from `from` to 2^octaves times that, by 16 bits of a random number. */
static inline __attribute__((always_inline)) __u32 bench_spread(__u32 from, __u32 octaves,
								__u32 random)
{
	__u32 octave = (((random & 0xff) * octaves) >> 8) & 31;

	return (from << octave) + (((from << octave) * (random >> 8 & 0xff)) >> 8);
}

/*
 * Connecting takes 100 us to 6.4 ms, the first byte 100 us to 25.6 ms more, closing 50 us to
 * 6.4 ms. The connection lives for longer than all of these.
 */
static inline __attribute__((always_inline)) void bench_latencies(__u64 random,
								  struct lbl_event *event)
{
	event->connect_us = bench_spread(100, 6, random & 0xffff);
	event->first_byte_us = event->connect_us + bench_spread(100, 8, random >> 16 & 0xffff);
	event->closing_us = bench_spread(50, 7, random >> 32 & 0xffff);
	event->created_ns -= (event->first_byte_us + event->closing_us) * 1000ULL;
}

static inline __attribute__((always_inline)) void bench_event(const struct bench_spec *spec,
							      __u32 i, struct lbl_event *event)
{
	__u64 random = bench_mix(spec->seed + (spec->first + i) * 0x9e3779b97f4a7c15);
	__u32 backend = spec->in_turn ? (spec->first + i) % spec->backends
				      : ((random >> 40) * spec->backends) >> 24;
	__u32 octave = (spec->octave + (((random & 0xffff) * spec->octaves) >> 16)) & 63;
	__u64 lifetime = 1ULL << octave;

	lifetime += (random * 0xa0761d6478bd642f) & (lifetime - 1);
	*event = (struct lbl_event){
		.type = spec->with_opened && random & 1 << 20 ? LBL_OPENED : LBL_CLOSED,
		.reason = LBL_REASON_FIN,
		.protocol = 6,
		.flags = LBL_FLAG_IPV4,
		.backend_id = spec->with_ids ? backend + 1 : 0,
		.timestamp_ns = 1ULL << 60,
		.created_ns = (1ULL << 60) - lifetime,
		.connect_us = 150,
		.first_byte_us = 900,
		.port = 8080,
		.addr = { [10] = 0xff, 0xff, 10, backend >> 16, backend >> 8, backend },
	};
	if (spec->all_latencies)
		bench_latencies(bench_mix(random), event);
}

#endif
