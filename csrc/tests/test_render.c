// SPDX-License-Identifier: MIT
/* What all renderers are made of: numbers, the buffer, messages, folding, and a page of all. */
#include <math.h>

#include "common.h"
#include "render/fold.h"
#include "render/native.h"
#include "render/number.h"
#include "render/proto.h"
#include "render/render.h"

static uint64_t next_random(void)
{
	static uint64_t state = 88172645463325252ULL;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* ---- numbers ---- */

static bool is_text(const char *text, const char *end, const char *expected)
{
	return (size_t)(end - text) == strlen(expected) &&
	       !memcmp(text, expected, (size_t)(end - text));
}

/* All numbers of digits, at both ends. */
static void test_integers(void)
{
	char text[LBL_NUMBER_MAX], expected[LBL_NUMBER_MAX];
	uint64_t power = 1;
	int digits, i;

	for (digits = 1; digits <= 20; digits++, power *= 10) {
		const uint64_t values[] = { power - 1, power, power + 1, 9 * power + 7,
					    UINT64_MAX };

		for (i = 0; i < 5; i++) {
			snprintf(expected, sizeof(expected), "%llu", (unsigned long long)values[i]);
			CHECK(is_text(text, lbl_write_u64(text, values[i]), expected));
		}
	}
}

static void test_seconds(void)
{
	const lbl_u128 most = ~(lbl_u128)0;
	char text[LBL_NUMBER_MAX];
	int i;

	CHECK(is_text(text, lbl_write_seconds(text, 0), "0.0"));
	CHECK(is_text(text, lbl_write_seconds(text, 1), "0.000000001"));
	CHECK(is_text(text, lbl_write_seconds(text, 12500000000), "12.5"));
	CHECK(is_text(text, lbl_write_seconds(text, 1000000000), "1.0"));
	CHECK(is_text(text, lbl_write_seconds(text, most),
		      "340282366920938463463374607431.768211455"));
	CHECK(is_text(text, lbl_write_seconds(text, (lbl_u128)1 << 64), "18446744073.709551616"));
	for (i = 0; i < 10000; i++) {
		lbl_u128 ns = ((lbl_u128)next_random() << 64 | next_random()) >> (i % 128);

		*lbl_write_seconds(text, ns) = 0;
		CHECK(lbl_seconds(ns) == strtod(text, NULL));
	}
}

static void check_double(double value)
{
	char text[LBL_NUMBER_MAX], fewer[LBL_NUMBER_MAX], *at;
	int digits = 0;

	*lbl_write_double(text, value) = 0;
	CHECK(strtod(text, NULL) == value);
	CHECK(strpbrk(text, ".e"));
	for (at = text; *at && *at != 'e'; at++)
		digits += *at >= '0' && *at <= '9' && (digits || *at != '0');
	while (at > text && (at[-1] == '0' || at[-1] == '.'))
		digits -= *--at == '0' && digits > 1;
	CHECK(digits <= 17);
	if (digits < 2)
		return;
	snprintf(fewer, sizeof(fewer), "%.*e", digits - 2, value);
	CHECK(digits == 16 || strtod(fewer, NULL) != value); /* of 17 digits, some need but 16 */
}

/* As Go and Prometheus write them, shortest, and always read as the same. */
static void test_doubles(void)
{
	static const struct {
		double value;
		const char *text;
	} known[] = {
		{ 0, "0.0" },
		{ 1, "1.0" },
		{ -1, "-1.0" },
		{ 0.001, "0.001" },
		{ 0.0001, "0.0001" },
		{ 0.00001, "1e-05" },
		{ 1.5e-7, "1.5e-07" },
		{ 2.5, "2.5" },
		{ 0.1 + 0.2, "0.30000000000000004" },
		{ 86400, "86400.0" },
		{ 999999, "999999.0" },
		{ 123456.75, "123456.75" },
		{ 1e6, "1e+06" },
		{ 16777216, "1.6777216e+07" },
		{ 1e100, "1e+100" },
		{ 2.2250738585072014e-308, "2.2250738585072014e-308" },
		{ 1.7976931348623157e308, "1.7976931348623157e+308" },
		{ INFINITY, "+Inf" },
		{ -INFINITY, "-Inf" },
		{ NAN, "NaN" },
	};
	char text[LBL_NUMBER_MAX];
	size_t i;

	for (i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		CHECK(is_text(text, lbl_write_double(text, known[i].value), known[i].text));
	for (i = 0; i < 20000; i++) {
		union {
			uint64_t u;
			double d;
		} any = { .u = next_random() };

		if (isfinite(any.d))
			check_double(any.d);
		check_double((double)(any.u % 10000000) / 1000);
	}
}

/* ---- the buffer ---- */

static void test_a_buffer_keeps_its_first_failure(void)
{
	struct lbl_buffer buffer = { 0 };
	size_t i;

	for (i = 0; i < 10000; i++)
		lbl_put(&buffer, &i, sizeof(i));
	CHECK(!buffer.err && buffer.n == 10000 * sizeof(i));
	CHECK(!memcmp(buffer.at + 9999 * sizeof(i), &(size_t){ 9999 }, sizeof(i)));
	CHECK(!lbl_buffer_room(&buffer, LBL_BUFFER_MAX));
	CHECK(buffer.err == -ENOMEM);
	lbl_put(&buffer, "x", 1);
	lbl_message_end(&buffer, lbl_message_begin(&buffer, 1));
	CHECK(buffer.n == 10000 * sizeof(i) && buffer.err == -ENOMEM);
	lbl_buffer_release(&buffer);
	CHECK(!buffer.at && !buffer.err);
}

/* ---- messages ---- */

static uint64_t read_varint(const char **at)
{
	uint64_t value = 0;
	int shift = 0;

	do
		value |= (uint64_t)(**at & 0x7f) << shift;
	while (shift += 7, *(*at)++ & 0x80);
	return value;
}

static void test_varints(void)
{
	char bytes[LBL_VARINT_MAX];
	int shift;

	for (shift = 0; shift < 64; shift++) {
		const uint64_t values[] = { (1ULL << shift) - 1, 1ULL << shift,
					    UINT64_MAX >> shift };
		int i;

		for (i = 0; i < 3; i++) {
			const char *end = lbl_write_varint(bytes, values[i]), *at = bytes;

			CHECK((size_t)(end - bytes) == lbl_varint_bytes(values[i]));
			CHECK(read_varint(&at) == values[i] && at == end);
		}
	}
	CHECK(lbl_zigzag(0) == 0 && lbl_zigzag(-1) == 1 && lbl_zigzag(1) == 2);
	CHECK(lbl_zigzag(INT64_MIN) == UINT64_MAX && lbl_zigzag(INT64_MAX) == UINT64_MAX - 1);
}

/* A message of any length within another, where the length takes one byte more. */
static void test_messages_have_their_lengths_before_them(void)
{
	static const size_t lengths[] = { 0, 1, 120, 125, 126, 127, 128, 16381, 16384, 70000 };
	static char bytes[70000];
	size_t i;

	for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		struct lbl_buffer out = { 0 };
		size_t outer = lbl_message_begin(&out, 0), n;
		const char *at;

		lbl_put_bytes(&out, 2, bytes, lengths[i]);
		lbl_message_end(&out, outer);
		at = out.at;
		n = read_varint(&at);
		CHECK(at + n == out.at + out.n);
		CHECK(read_varint(&at) == (2 << 3 | LBL_WIRE_BYTES));
		CHECK(read_varint(&at) == lengths[i] && at + lengths[i] == out.at + out.n);
		lbl_buffer_release(&out);
	}
}

/* ---- native buckets ---- */

/* Coarsening, pair by pair, is what reading at the coarser schema gives. */
static void test_a_coarser_schema_is_exact(void)
{
	static struct lbl_native native, expected;
	static uint16_t slots[LBL_SLOTS_MAX];
	static uint64_t numbers[LBL_SLOTS_MAX];
	struct lbl_buckets *buckets = make_buckets();
	struct lbl_backend_snapshot row = { 0 };
	struct lbl_counts counts = {
		.buckets = buckets, .row = &row, .slots = slots, .counts = numbers
	};
	uint32_t step, i;
	int schema;

	for (step = 1; step < 40; step++) {
		row.n = 0;
		for (i = step % 3; i < lbl_buckets_slots(buckets); i += step) {
			slots[row.n] = (uint16_t)i;
			numbers[row.n++] = i + 1;
		}
		for (schema = LBL_NATIVE_SCHEMA_MIN; schema <= LBL_NATIVE_SCHEMA; schema++) {
			lbl_native_read(&native, &counts, schema, step % 2);
			CHECK(native.schema <= schema && native.n <= LBL_NATIVE_BUCKETS_MAX);
			expected.n = (size_t)lbl_hist_native(buckets, native.schema, row.n, slots,
							     numbers, expected.index,
							     expected.count, &expected.zero_count);
			CHECK(native.n == expected.n && native.zero_count == expected.zero_count);
			CHECK(!memcmp(native.index, expected.index, native.n * sizeof(int32_t)));
			CHECK(!memcmp(native.count, expected.count, native.n * sizeof(uint64_t)));
		}
	}
	lbl_buckets_free(buckets);
}

/* ---- folding ---- */

static struct lbl_tracker *tracker;

static void record(const char *name, uint8_t host, double seconds)
{
	uint8_t addr[16] = { [10] = 0xff, [11] = 0xff, [12] = 10, [15] = host };
	struct lbl_backend *backend;
	int number = lbl_tracker_name(tracker, name, strlen(name));

	REQUIRE(number >= 0 &&
		!lbl_tracker_backend(tracker, LBL_LIFETIME, (uint16_t)number, addr, 80, &backend));
	REQUIRE(!lbl_backend_observe(backend, seconds));
	lbl_backend_free(backend);
}

static uint64_t total(const struct lbl_snapshot *snapshot)
{
	uint64_t sum = 0;
	size_t i, k;

	for (i = 0; i < snapshot->n_rows; i++) {
		const struct lbl_backend_snapshot *row = &snapshot->rows[i];

		sum += row->sum_lo * 1000003;
		for (k = row->first; k < row->first + row->n; k++)
			sum += snapshot->counts[k] * (snapshot->slots[k] + 17ULL);
		sum += row->count << 40;
	}
	return sum;
}

/* Any number of backends stays, and what goes is in the first row; memory may end at any time. */
static void test_folding_loses_no_count(void)
{
	struct lbl_snapshot *snapshot;
	uint64_t before, from;
	size_t max, folded;
	int i;

	tracker = make_tracker(100, false);
	for (i = 0; i < 50; i++)
		record(i % 2 ? "b" : "a", (uint8_t)(100 - i), i * 0.01);
	for (max = 0; max <= 60; max++) {
		REQUIRE(!lbl_tracker_snapshot(tracker, LBL_LIFETIME, &snapshot));
		before = total(snapshot);
		no_memory = true;
		CHECK(lbl_fold_from(snapshot, max, &from) == (max < 51 ? -ENOMEM : 0));
		no_memory = false;
		CHECK(!lbl_fold_from(snapshot, max, &from));
		CHECK((from == UINT64_MAX) == (max >= 50));
		no_memory = true;
		CHECK(lbl_fold(snapshot, from, &folded) == (max < 50 ? -ENOMEM : 0));
		no_memory = false;
		CHECK(total(snapshot) == before);
		CHECK(!lbl_fold(snapshot, from, &folded));
		CHECK(total(snapshot) == before && folded == (max < 50 ? 50 - max : 0));
		CHECK(snapshot->n_rows == 51 - folded && !snapshot->rows[0].name);
		lbl_snapshot_free(snapshot);
	}
	lbl_tracker_free(tracker);
}

/* ---- pages ---- */

static const double bounds[] = { 0.001, 1, 3600 };

static int make_page(struct lbl_page **ret)
{
	struct lbl_shown shown = { .bounds = { bounds }, .max_backends = SIZE_MAX };
	int err = lbl_page_new(ret);

	if (err)
		return err;
	err = lbl_page_add(*ret, tracker, &shown);
	if (err)
		lbl_page_free(*ret);
	return err;
}

static bool has(const char *bytes, size_t n, const char *text)
{
	return memmem(bytes, n, text, strlen(text));
}

/* An example of each format; tests in Python read all of it. */
static void test_a_page_in_all_formats(void)
{
	struct lbl_rendering how = { .schema = 3 };
	struct lbl_page *page;
	struct lbl_render *render;
	const char *bytes;
	size_t n;

	tracker = make_tracker(10, false);
	record("a\"\\\n", 1, 0.5);
	REQUIRE(!make_page(&page));
	for (how.format = LBL_TEXT; how.format <= LBL_OTLP; how.format++) {
		REQUIRE(!lbl_render_new(page, &how, &render) &&
			!lbl_render_next(render, SIZE_MAX, &bytes, &n));
		if (how.format <= LBL_OPENMETRICS) {
			CHECK(has(bytes, n,
				  "lb_backend_latency_seconds_bucket{le=\"1.0\","
				  "proxy_name=\"a\\\"\\\\\\n\",target_ip=\"10.0.0.1\","
				  "target_port=\"80\"} 1.0\n"));
			CHECK(has(bytes, n, "# EOF\n") == (how.format == LBL_OPENMETRICS));
		} else {
			CHECK(has(bytes, n, "a\"\\\n") && has(bytes, n, "10.0.0.1"));
		}
		lbl_render_free(render);
	}
	how = (struct lbl_rendering){ .schema = LBL_NATIVE_SCHEMA + 1 };
	CHECK(lbl_render_new(page, &how, &render) == -EINVAL);
	lbl_render_free(NULL);
	lbl_page_free(page);
	lbl_tracker_free(tracker);
}

/* Pieces of any length are the whole, and settled ones do not change. Those of OTLP are whole, too. */
static void test_pieces_make_the_whole(void)
{
	static const size_t lengths[] = { 1, 100, 1000, 5000, 100000 };
	struct lbl_rendering how = { .schema = 3 };
	struct lbl_render *whole, *pieces;
	const char *all, *piece;
	struct lbl_page *page;
	size_t i, n, k;

	tracker = make_tracker(300, false);
	for (i = 0; i < 250; i++)
		record("web", (uint8_t)i, (double)i);
	REQUIRE(!make_page(&page));
	for (how.format = LBL_TEXT; how.format <= LBL_OTLP; how.format++) {
		REQUIRE(!lbl_render_new(page, &how, &whole) &&
			!lbl_render_next(whole, SIZE_MAX, &all, &n));
		for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
			size_t at = 0, number = 0;

			REQUIRE(!lbl_render_new(page, &how, &pieces));
			for (; !lbl_render_next(pieces, lengths[i], &piece, &k) && k; at += k) {
				number++;
				if (how.format == LBL_OTLP)
					continue;
				REQUIRE(at + k <= n);
				CHECK(!memcmp(all + at, piece, k));
				CHECK(k >= lengths[i] || at + k == n);
			}
			CHECK(how.format == LBL_OTLP ? at >= n : at == n);
			CHECK(number > 1 || i > 3);
			CHECK(!lbl_render_next(pieces, 1, &piece, &k) && !k);
			lbl_render_free(pieces);
		}
		lbl_render_free(whole);
	}
	lbl_page_free(page);
	lbl_tracker_free(tracker);
}

/* Whichever allocation is the first to fail, it is told, and nothing leaks. */
static void test_memory_ends_at_every_point(void)
{
	struct lbl_page *page;
	uint32_t at;
	int err;

	tracker = make_tracker(10, true);
	record("web", 1, 0.5);
	for (at = 1, err = -1; err; at++) {
		memory_ends_at = at;
		err = make_page(&page);
		memory_ends_at = 0;
		no_memory = false;
		CHECK(!err || err == -ENOMEM);
		REQUIRE(at < 100);
	}
	CHECK(at > 4);
	lbl_page_free(page);
	lbl_page_free(NULL);
	lbl_tracker_free(tracker);
}

/* ---- threads ---- */

static struct lbl_page *shared;
static uint64_t stop;

static void *render_often(void *unused)
{
	struct lbl_rendering how = { .schema = 3 };
	struct lbl_render *render;
	const char *bytes;
	size_t n;
	int i;

	for (i = 0; i < 50; i++) {
		how.format = (enum lbl_format)(i % 4);
		REQUIRE(!lbl_render_new(shared, &how, &render) &&
			!lbl_render_next(render, 1 << i % 20, &bytes, &n));
		lbl_render_free(render);
	}
	return unused;
}

static void *record_always(void *unused)
{
	int i;

	for (i = 0; !READ_ONCE(&stop); i++)
		record(i % 2 ? "a" : "b", (uint8_t)i, i * 1e-4);
	return unused;
}

/* Several threads render one page, while others are made, and while latencies are recorded. */
static void test_threads_share_a_page(void)
{
	pthread_t renderers[3], recorder;
	struct lbl_page *page;
	int i;

	tracker = make_tracker(1000, false);
	record("first", 1, 1);
	REQUIRE(!make_page(&shared));
	REQUIRE(!pthread_create(&recorder, NULL, record_always, NULL));
	for (i = 0; i < 3; i++)
		REQUIRE(!pthread_create(&renderers[i], NULL, render_often, NULL));
	for (i = 0; i < 20; i++) {
		REQUIRE(!make_page(&page));
		lbl_page_free(page);
	}
	for (i = 0; i < 3; i++)
		pthread_join(renderers[i], NULL);
	WRITE_ONCE(&stop, 1);
	pthread_join(recorder, NULL);
	lbl_page_free(shared);
	lbl_tracker_free(tracker);
}

int main(void)
{
	RUN(test_integers);
	RUN(test_seconds);
	RUN(test_doubles);
	RUN(test_a_buffer_keeps_its_first_failure);
	RUN(test_varints);
	RUN(test_messages_have_their_lengths_before_them);
	RUN(test_a_coarser_schema_is_exact);
	RUN(test_folding_loses_no_count);
	RUN(test_a_page_in_all_formats);
	RUN(test_pieces_make_the_whole);
	RUN(test_memory_ends_at_every_point);
	RUN(test_threads_share_a_page);
	return checks_done();
}
