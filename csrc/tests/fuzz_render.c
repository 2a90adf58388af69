// SPDX-License-Identifier: MIT
/*
 * Render pages with any names, latencies and families of other collectors, in all formats: no memory
 * error, text ends with a line, and messages end where they say. libFuzzer calls
 * LLVMFuzzerTestOneInput(); without it, main() generates the same inputs each time.
 */
#include "common.h"
#include "render/render.h"

enum { TEXTS_MAX = 64 };

/* What is left of the input. */
struct input {
	const uint8_t *at;
	size_t n;
};

static uint8_t take(struct input *input)
{
	if (!input->n)
		return 0;
	input->n--;
	return *input->at++;
}

/* Bytes of a length that the input says; never NULL. */
static size_t take_text(struct input *input, const char **ret)
{
	size_t n = take(input) % 40;

	if (n > input->n)
		n = input->n;
	*ret = (const char *)input->at;
	input->at += n;
	input->n -= n;
	return n;
}

/* ---- trackers ---- */

static void record(struct lbl_tracker *tracker, struct input *input)
{
	uint8_t addr[16] = { take(input), [10] = take(input), [11] = 0xff, [15] = take(input) };
	struct lbl_backend *backend;
	const char *name;
	size_t n = take_text(input, &name);
	int number = lbl_tracker_name(tracker, name, n);

	REQUIRE(number >= 0 &&
		!lbl_tracker_backend(tracker, LBL_LIFETIME, (uint16_t)number, addr, 80, &backend));
	REQUIRE(!lbl_backend_observe(backend, take(input) * (double)(1 << take(input) % 30) / 1e6));
	lbl_backend_free(backend);
}

/* ---- families of others ---- */

static char texts[TEXTS_MAX * 40];
static uint32_t lengths[TEXTS_MAX], numbers[TEXTS_MAX];
static double values[TEXTS_MAX];

static void put_text(struct input *input, size_t *n, size_t *at)
{
	const char *text;

	lengths[*n] = (uint32_t)take_text(input, &text);
	memcpy(texts + *at, text, lengths[*n]);
	*at += lengths[(*n)++];
}

/* One family with some samples, of any type. */
static struct lbl_given make_given(struct input *input)
{
	size_t n_texts = 0, at = 0, n_numbers = 0, n_values = 0;
	uint32_t samples = take(input) % 8, i;

	for (i = 0; i < 3; i++)
		put_text(input, &n_texts, &at);
	numbers[n_numbers++] = take(input) % (LBL_UNKNOWN + 1);
	numbers[n_numbers++] = LBL_NOT_IN_TABLE;
	numbers[n_numbers++] = samples;
	for (i = 0; i < samples; i++) {
		uint32_t labels = take(input) % 3, k;

		put_text(input, &n_texts, &at);
		numbers[n_numbers++] = labels;
		for (k = 0; k < 2 * labels; k++)
			put_text(input, &n_texts, &at);
		values[n_values++] = take(input) - 3.5;
		values[n_values++] = take(input) % 2 ? NAN : take(input);
		values[n_values++] = take(input) % 2 ? NAN : take(input);
	}
	return (struct lbl_given){ .texts = texts,
				   .lengths = lengths,
				   .numbers = numbers,
				   .values = values,
				   .n_families = 1,
				   .max_labels = 2 };
}

/* ---- checks ---- */

static uint64_t read_varint(const char **at, const char *end)
{
	uint64_t value = 0;
	int shift;

	for (shift = 0; shift < 70; shift += 7) {
		REQUIRE(*at < end);
		value |= (uint64_t)(**at & 0x7f) << shift;
		if (!(*(*at)++ & 0x80))
			break;
	}
	REQUIRE(shift < 70);
	return value;
}

/* The fields of a message fill it exactly. */
static void check_message(const char *at, const char *end)
{
	while (at < end) {
		uint64_t n = 8;

		switch (read_varint(&at, end) % 8) {
		case 0:
			read_varint(&at, end);
			continue;
		case 2:
			n = read_varint(&at, end);
			/* fall through */
		case 1:
			REQUIRE(n <= (uint64_t)(end - at));
			at += n;
			continue;
		default:
			REQUIRE(false);
		}
	}
}

static void check_delimited(const char *at, const char *end)
{
	while (at < end) {
		uint64_t n = read_varint(&at, end);

		REQUIRE(n <= (uint64_t)(end - at));
		check_message(at, at + n);
		at += n;
	}
}

static void check_formats(const struct lbl_page *page, const struct lbl_given *resource,
			  const struct input *rest)
{
	struct lbl_rendering how = { .schema = rest->n % 11 - 4, .resource = resource };
	size_t n;
	struct lbl_render *render;
	const char *bytes;

	for (how.format = LBL_TEXT; how.format <= LBL_OTLP; how.format++) {
		REQUIRE(!lbl_render_new(page, &how, &render) &&
			!lbl_render_next(render, SIZE_MAX, &bytes, &n));
		if (how.format == LBL_PROTOBUF)
			check_delimited(bytes, bytes + n);
		else if (how.format == LBL_OTLP)
			check_message(bytes, bytes + n);
		else
			REQUIRE(n && bytes[n - 1] == '\n');
		lbl_render_free(render);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const double bounds[] = { 0.001, 1, 3600 };
	struct lbl_tracker *tracker = make_tracker(4, false);
	struct input input = { data, size };
	struct lbl_given given;
	struct lbl_page *page;
	struct lbl_shown shown = { .bounds = { bounds },
				   .label = take(&input) % 2 ? "first" : NULL,
				   .label_bytes = 5,
				   .max_backends = take(&input) % 5 };
	uint8_t n = take(&input) % 8;

	while (n--)
		record(tracker, &input);
	given = make_given(&input);
	REQUIRE(!lbl_page_new(&page) && !lbl_page_add(page, tracker, &shown));
	lbl_page_give(page, &given);
	check_formats(page, numbers[2] ? &given : NULL, &input);
	lbl_page_free(page);
	lbl_tracker_free(tracker);
	return 0;
}

#ifndef LBL_LIBFUZZER
int main(int argc, char **argv)
{
	long n = argc > 1 ? atol(argv[1]) : 2000, i;
	uint64_t state = 0x9e3779b97f4a7c15;
	static uint8_t data[1024];
	size_t k;

	for (i = 0; i < n; i++) {
		for (k = 0; k < sizeof(data); k++) {
			state = state * 6364136223846793005 + 1442695040888963407;
			data[k] = (uint8_t)(state >> 56);
		}
		LLVMFuzzerTestOneInput(data, (size_t)(state >> 40) % sizeof(data));
	}
	printf("ok 1 - %ld inputs\n1..1\n", n);
	return 0;
}
#endif
