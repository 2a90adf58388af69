// SPDX-License-Identifier: MIT
/*
 * Decode, record and drain any bytes that a producer may put into a ring: no memory error, and
 * every record accounted for. libFuzzer calls LLVMFuzzerTestOneInput(); without libFuzzer, main()
 * generates the same inputs each time.
 */
#include "common.h"
#include "event/decode.h"

static void fuzz_decode(const uint8_t *data, size_t size)
{
	struct lbl_decoded_event seen;
	int err = lbl_decode(data, (uint32_t)size, &seen);

	REQUIRE(err == 0 || err == -EINVAL);
	REQUIRE(err || (size % 64 == 56 || size == 64 || size == 72));
	REQUIRE(err || (seen.event.type >= LBL_OPENED && seen.event.type <= LBL_PERIODIC));
	REQUIRE(err || seen.event.reason < LBL_REASONS);
}

/* Input: records, each with its length in the first byte. */
static void fuzz_record(struct lbl_shard *shard, const uint8_t *data, size_t size)
{
	uint64_t n = 0;

	while (size) {
		uint32_t len = data[0] < size ? data[0] : (uint32_t)size - 1;

		lbl_shard_record(shard, data + 1, len);
		data += 1 + len;
		size -= 1 + len;
		n++;
	}
	REQUIRE(kinds(&shard->outcomes) == n && accounted(&shard->outcomes));
}

/* Input: a position (first byte times 8), and the ring's bytes from there on. */
static void fuzz_ring(struct lbl_shard *shard, const uint8_t *data, size_t size)
{
	uint64_t before = kinds(&shard->outcomes), start;
	struct lbl_stream *stream;
	uint8_t *memory;
	size_t i;
	int pass;

	if (!size)
		return;
	REQUIRE(!lbl_stream_memory(4096, &stream));
	lbl_stream_stop(stream);
	stream->sinks[0] = &shard->sink;
	stream->n_sinks = 1;
	memory = (uint8_t *)(uintptr_t)stream->ring.data;
	start = data[0] * 8ULL;
	size = size > 4096 ? 4096 : size;
	for (i = 0; i < size; i++)
		memory[(start + i) & 4095] = data[i];
	*stream->ring.consumer_pos = start;
	stream->ring.position = start;
	*stream->ring.producer_pos = start + (size & ~7UL);
	for (pass = 0; pass < 2; pass++) {
		REQUIRE(lbl_ring_waiting(&stream->ring) <= size);
		REQUIRE(lbl_stream_drain(stream) >= 0);
		REQUIRE(lbl_ring_fill(&stream->ring) <= 4096);
	}
	REQUIRE(kinds(&shard->outcomes) - before == stream->counts.received &&
		accounted(&shard->outcomes));
	lbl_stream_free(stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lbl_shard *shard = make_shard(8, true);

	fuzz_decode(data, size);
	fuzz_record(shard, data, size);
	fuzz_ring(shard, data, size);
	free_shard(shard);
	return 0;
}

#ifndef LBL_LIBFUZZER
static uint64_t state = 0x9e3779b97f4a7c15;

static uint32_t random_below(uint32_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)((state >> 32) * n >> 32);
}

/* Generate a ring's contents: records with headers, mostly of a known length. */
static size_t make_input(uint8_t *data, size_t capacity)
{
	static const uint32_t lengths[] = { 56, 56, 56, 64, 72, 120, 0, 8, 57, 4096 };
	size_t size = 0, i;
	uint32_t flips;

	while (size + 88 <= capacity && random_below(24)) {
		struct lbl_event event =
			closed_event(random_below(1 << 30), (uint8_t)random_below(16));
		uint32_t len = lengths[random_below(9)];

		memset(data + size, 0, 88);
		memcpy(data + size, &len, sizeof(len));
		memcpy(data + size + 8, &event, sizeof(event));
		if (random_below(8) == 0)
			data[size + 3] = (uint8_t)(random_below(4) << 6); /* busy, discarded */
		size += lbl_ring_stride(len > 72 ? 72 : len);
	}
	flips = random_below(4) * random_below(8);
	for (i = 0; size && i < flips; i++)
		data[random_below((uint32_t)size)] = (uint8_t)random_below(256);
	return size;
}

int main(int argc, char **argv)
{
	long n = argc > 1 ? atol(argv[1]) : 20000, i;
	static uint8_t data[4096];

	for (i = 0; i < n; i++)
		LLVMFuzzerTestOneInput(data, make_input(data, sizeof(data)));
	printf("ok 1 - %ld inputs\n1..1\n", n);
	return 0;
}
#endif
