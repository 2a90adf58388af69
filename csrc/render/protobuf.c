// SPDX-License-Identifier: MIT
#include "render/proto.h"
#include "render/protobuf.h"

/* Numbers of fields, from io/prometheus/client/metrics.proto of prometheus/client_model. */
enum { FAMILY_NAME = 1, FAMILY_HELP, FAMILY_TYPE, FAMILY_METRIC, FAMILY_UNIT };
enum {
	METRIC_LABEL = 1,
	METRIC_GAUGE,
	METRIC_COUNTER,
	METRIC_SUMMARY,
	METRIC_UNTYPED,
	METRIC_TIMESTAMP_MS,
	METRIC_HISTOGRAM
};
enum { LABEL_NAME = 1, LABEL_VALUE };
enum { VALUE = 1, COUNTER_START = 3 }; /* of gauges, counters and untyped ones */
enum { COUNT = 1, SUM, BUCKET, COUNT_FLOAT }; /* of summaries and histograms */
enum { BUCKET_COUNT = 1, BUCKET_BOUND, BUCKET_COUNT_FLOAT = 4 };
enum { QUANTILE = 1, QUANTILE_VALUE };
enum { SCHEMA = 5, ZERO_THRESHOLD, ZERO_COUNT, SPAN = 12, DELTA, HISTOGRAM_START = 15 };
enum { SPAN_OFFSET = 1, SPAN_LENGTH };
enum { START_SECONDS = 1, START_NANOS };

static struct lbl_protobuf_writer *of(struct lbl_writer *writer)
{
	return (struct lbl_protobuf_writer *)writer;
}

static void put_text(struct lbl_buffer *out, uint32_t field, struct lbl_text text)
{
	lbl_put_bytes(out, field, text.at, text.n);
}

/* Labels without the one that distinguishes the samples of a histogram or a summary. */
static void put_labels(struct lbl_buffer *out, const struct lbl_labels *labels, const char *but)
{
	size_t i;

	for (i = 0; i < labels->n; i++) {
		const struct lbl_label *label = &labels->at[i];
		size_t start;

		if (lbl_is_label(label, but))
			continue;
		start = lbl_message_begin(out, METRIC_LABEL);
		put_text(out, LABEL_NAME, label->name);
		put_text(out, LABEL_VALUE, label->value);
		lbl_message_end(out, start);
	}
}

static void put_start(struct lbl_buffer *out, uint32_t field, uint64_t ns)
{
	size_t start;

	if (!ns)
		return;
	start = lbl_message_begin(out, field);
	lbl_put_int(out, START_SECONDS, ns / 1000000000);
	lbl_put_int(out, START_NANOS, ns % 1000000000);
	lbl_message_end(out, start);
}

/* ---- families ---- */

static uint32_t type_number(enum lbl_family_type type)
{
	enum { COUNTER, GAUGE, SUMMARY, UNTYPED, HISTOGRAM, GAUGE_HISTOGRAM };

	switch (type) {
	case LBL_COUNTER:
		return COUNTER;
	case LBL_SUMMARY:
		return SUMMARY;
	case LBL_HISTOGRAM:
		return HISTOGRAM;
	case LBL_GAUGE_HISTOGRAM:
		return GAUGE_HISTOGRAM;
	case LBL_UNKNOWN:
		return UNTYPED;
	default:
		return GAUGE;
	}
}

static void end_family(struct lbl_protobuf_writer *protobuf)
{
	if (protobuf->name.at)
		lbl_message_end(protobuf->writer.out, protobuf->family);
	protobuf->name.at = NULL;
}

/*
 * Be in the family of that name. A family is called like its samples here, and one without any
 * samples is left out.
 */
static void enter_family(struct lbl_protobuf_writer *protobuf, struct lbl_text name)
{
	const struct lbl_head *head = protobuf->writer.head;
	struct lbl_buffer *out = protobuf->writer.out;

	if (protobuf->name.at && lbl_same_text(protobuf->name, name))
		return;
	end_family(protobuf);
	protobuf->name = name;
	protobuf->family = lbl_message_begin(out, 0);
	put_text(out, FAMILY_NAME, name);
	put_text(out, FAMILY_HELP, head->help);
	lbl_put_int(out, FAMILY_TYPE, type_number(head->type));
	if (head->unit.n)
		put_text(out, FAMILY_UNIT, head->unit);
}

/* ---- native histograms ---- */

/* Write the buckets [first, end), whose indexes have no gap, as a span. */
static void put_span(struct lbl_buffer *out, int64_t offset, size_t length)
{
	size_t start = lbl_message_begin(out, SPAN);

	lbl_put_int(out, SPAN_OFFSET, lbl_zigzag(offset));
	lbl_put_int(out, SPAN_LENGTH, length);
	lbl_message_end(out, start);
}

/* The first span's offset is an index; another's is the gap before it. */
static void put_spans(struct lbl_buffer *out, const struct lbl_native *native)
{
	size_t first = 0, end;
	int64_t after = 0;

	for (; first < native->n; first = end) {
		for (end = first + 1; end < native->n; end++) {
			if (native->index[end] != native->index[end - 1] + 1)
				break;
		}
		put_span(out, native->index[first] - after, end - first);
		after = native->index[end - 1] + 1LL;
	}
	if (!native->n) /* tells that this is a native histogram, though all its counts are zero's */
		put_span(out, 0, 0);
}

/* Each count less the one before. */
static void put_deltas(struct lbl_buffer *out, const struct lbl_native *native)
{
	uint64_t before = 0;
	size_t start, i;
	char *to;

	if (!native->n)
		return;
	start = lbl_message_begin(out, DELTA);
	to = lbl_buffer_room(out, native->n * LBL_VARINT_MAX);
	if (!to)
		return;
	for (i = 0; i < native->n; i++) {
		to = lbl_write_varint(to, lbl_zigzag((int64_t)(native->count[i] - before)));
		before = native->count[i];
	}
	out->n = (size_t)(to - out->at);
	lbl_message_end(out, start);
}

static void put_native(struct lbl_buffer *out, const struct lbl_native *native)
{
	lbl_put_int(out, SCHEMA, lbl_zigzag(native->schema));
	lbl_put_double(out, ZERO_THRESHOLD, ldexp(1, LBL_ZERO_LOG2));
	lbl_put_int(out, ZERO_COUNT, native->zero_count);
	put_spans(out, native);
	put_deltas(out, native);
}

/* ---- classic histograms ---- */

/* +Inf is not among them: the count is that. */
static void put_classic(struct lbl_buffer *out, const struct lbl_counts *counts)
{
	uint32_t n = counts->buckets->n_classic, i;
	uint64_t cumulative[LBL_CLASSIC_MAX];
	char *to = lbl_buffer_room(out, n * 3 * LBL_FIELD_MAX);

	if (!to)
		return;
	lbl_hist_classic(counts->buckets, counts->row->n, counts->slots, counts->counts,
			 cumulative);
	for (i = 0; i < n; i++) {
		to = lbl_write_tag(to, BUCKET, LBL_WIRE_BYTES);
		*to++ = (char)(1 + lbl_varint_bytes(cumulative[i]) + 1 + 8); /* the length */
		to = lbl_write_int(to, BUCKET_COUNT, cumulative[i]);
		to = lbl_write_8_bytes(to, BUCKET_BOUND, &counts->bounds[i]);
	}
	out->n = (size_t)(to - out->at);
}

static void histogram(struct lbl_writer *writer, const struct lbl_counts *counts)
{
	struct lbl_protobuf_writer *protobuf = of(writer);
	struct lbl_buffer *out = writer->out;
	size_t metric, inner;

	enter_family(protobuf, writer->head->name);
	metric = lbl_message_begin(out, FAMILY_METRIC);
	put_labels(out, &counts->labels, NULL);
	inner = lbl_message_begin(out, METRIC_HISTOGRAM);
	lbl_put_int(out, COUNT, counts->row->count);
	lbl_put_double(out, SUM, lbl_counts_sum(counts));
	put_classic(out, counts);
	lbl_native_read(&protobuf->native, counts, protobuf->schema, false);
	put_native(out, &protobuf->native);
	put_start(out, HISTOGRAM_START, counts->started_ns);
	lbl_message_end(out, inner);
	lbl_message_end(out, metric);
}

/* ---- samples of which each is a metric ---- */

static uint32_t value_field(enum lbl_family_type type)
{
	switch (type) {
	case LBL_COUNTER:
		return METRIC_COUNTER;
	case LBL_UNKNOWN:
		return METRIC_UNTYPED;
	default:
		return METRIC_GAUGE;
	}
}

static void put_timestamp(struct lbl_buffer *out, double timestamp)
{
	if (!isnan(timestamp))
		lbl_put_int(out, METRIC_TIMESTAMP_MS, (uint64_t)(int64_t)(timestamp * 1000));
}

static void put_value(struct lbl_writer *writer, const struct lbl_point *point)
{
	struct lbl_buffer *out = writer->out;
	size_t metric, inner;

	enter_family(of(writer), point->name);
	metric = lbl_message_begin(out, FAMILY_METRIC);
	put_labels(out, &point->labels, NULL);
	inner = lbl_message_begin(out, value_field(writer->head->type));
	lbl_put_double(out, VALUE, point->value);
	if (writer->head->type == LBL_COUNTER)
		put_start(out, COUNTER_START, point->started_ns);
	lbl_message_end(out, inner);
	put_timestamp(out, point->timestamp);
	lbl_message_end(out, metric);
}

/* ---- samples that make a histogram or a summary together ---- */

static bool is_summary(const struct lbl_writer *writer)
{
	return writer->head->type == LBL_SUMMARY;
}

/* End the histogram or summary of the samples so far. */
static void put_together(struct lbl_protobuf_writer *protobuf)
{
	struct lbl_buffer *out = protobuf->writer.out;
	size_t metric;

	if (!protobuf->parts.n)
		return;
	enter_family(protobuf, protobuf->writer.head->name);
	metric = lbl_message_begin(out, FAMILY_METRIC);
	lbl_put(out, protobuf->joint.labels.at, protobuf->joint.labels.n);
	lbl_put_bytes(out, is_summary(&protobuf->writer) ? METRIC_SUMMARY : METRIC_HISTOGRAM,
		      protobuf->parts.at, protobuf->parts.n);
	lbl_message_end(out, metric);
	protobuf->parts.n = 0;
}

/* Histograms can have counts that are no integers, in another field. */
static void put_count(struct lbl_buffer *out, uint32_t field, uint32_t field_float, double count)
{
	if (count >= 0 && count < 0x1p63 && count == floor(count))
		lbl_put_int(out, field, (uint64_t)count);
	else
		lbl_put_double(out, field_float, count);
}

static void put_bucket(struct lbl_protobuf_writer *protobuf, const struct lbl_point *point)
{
	struct lbl_buffer *parts = &protobuf->parts;
	size_t start = lbl_message_begin(parts, BUCKET);

	if (is_summary(&protobuf->writer)) {
		lbl_put_double(parts, QUANTILE, point->bound);
		lbl_put_double(parts, QUANTILE_VALUE, point->value);
	} else {
		put_count(parts, BUCKET_COUNT, BUCKET_COUNT_FLOAT, point->value);
		lbl_put_double(parts, BUCKET_BOUND, point->bound);
	}
	lbl_message_end(parts, start);
}

static void put_part(struct lbl_protobuf_writer *protobuf, const struct lbl_point *point)
{
	if (!isnan(point->bound))
		put_bucket(protobuf, point);
	else if (lbl_ends_with(point->name, "count"))
		put_count(&protobuf->parts, COUNT, COUNT_FLOAT, point->value);
	else if (lbl_ends_with(point->name, "sum"))
		lbl_put_double(&protobuf->parts, SUM, point->value);
}

static void join(struct lbl_protobuf_writer *protobuf, const struct lbl_point *point)
{
	struct lbl_joint *joint = &protobuf->joint;

	joint->next.n = 0;
	put_labels(&joint->next, &point->labels, lbl_joining_label(protobuf->writer.head->type));
	if (!lbl_joint_continues(joint)) {
		put_together(protobuf);
		lbl_joint_begin(joint);
	}
	put_part(protobuf, point);
}

/* ---- the writer ---- */

static void begin(struct lbl_writer *writer, const struct lbl_head *head)
{
	writer->head = head;
	of(writer)->joint.labels.n = 0;
}

static void sample(struct lbl_writer *writer, const struct lbl_point *point)
{
	if (lbl_joining_label(writer->head->type))
		join(of(writer), point);
	else
		put_value(writer, point);
}

static void end(struct lbl_writer *writer)
{
	struct lbl_protobuf_writer *protobuf = of(writer);

	put_together(protobuf);
	end_family(protobuf);
	if (protobuf->joint.labels.err || protobuf->joint.next.err || protobuf->parts.err)
		writer->out->err = -ENOMEM;
}

static void finish(struct lbl_writer *writer)
{
	(void)writer;
}

static void destroy(struct lbl_writer *writer)
{
	struct lbl_protobuf_writer *protobuf = of(writer);

	lbl_joint_release(&protobuf->joint);
	lbl_buffer_release(&protobuf->parts);
}

static const struct lbl_writer_ops ops = { begin,  sample, histogram, end,
					   finish, NULL,   destroy,   LBL_BETWEEN_FAMILIES };

void lbl_protobuf_init(struct lbl_protobuf_writer *protobuf, struct lbl_buffer *out, int schema)
{
	*protobuf = (struct lbl_protobuf_writer){ .writer = { .ops = &ops, .out = out },
						  .schema = schema };
}
