// SPDX-License-Identifier: MIT
#include "render/otlp.h"
#include "render/proto.h"

/* Numbers of fields, from opentelemetry/proto of open-telemetry/opentelemetry-proto, 1.0 and later. */
enum { REQUEST_RESOURCE_METRICS = 1 };
enum { RESOURCE = 1, SCOPE_METRICS };
enum { ATTRIBUTES = 1, KEY = 1, ANY_VALUE = 2, STRING_VALUE = 1 };
enum { SCOPE = 1, METRICS, SCOPE_NAME = 1 };
enum { NAME = 1, DESCRIPTION, UNIT, GAUGE = 5, SUM = 7, HISTOGRAM = 9, EXPONENTIAL, SUMMARY };
enum { POINTS = 1, TEMPORALITY, IS_MONOTONIC, CUMULATIVE = 2 };
enum { START = 2, TIME }; /* of all points */
enum { NUMBER_DOUBLE = 4, NUMBER_ATTRIBUTES = 7 };
enum { POINT_COUNT = 4, POINT_SUM };
enum { QUANTILE_VALUES = 6, SUMMARY_ATTRIBUTES, QUANTILE = 1, QUANTILE_VALUE };
enum { BUCKET_COUNTS = 6, EXPLICIT_BOUNDS, HISTOGRAM_ATTRIBUTES = 9 };
enum { EXPONENTIAL_ATTRIBUTES = 1, SCALE = 6, ZERO_COUNT, POSITIVE, ZERO_THRESHOLD = 14 };
enum { OFFSET = 1, DENSE_COUNTS };

static struct lbl_otlp_writer *of(struct lbl_writer *writer)
{
	return (struct lbl_otlp_writer *)writer;
}

static void put_text(struct lbl_buffer *out, uint32_t field, struct lbl_text text)
{
	lbl_put_bytes(out, field, text.at, text.n);
}

static void put_attributes(struct lbl_buffer *out, uint32_t field, const struct lbl_labels *labels,
			   const char *but)
{
	size_t i, start, value;

	for (i = 0; i < labels->n; i++) {
		if (lbl_is_label(&labels->at[i], but))
			continue;
		start = lbl_message_begin(out, field);
		put_text(out, KEY, labels->at[i].name);
		value = lbl_message_begin(out, ANY_VALUE);
		put_text(out, STRING_VALUE, labels->at[i].value);
		lbl_message_end(out, value);
		lbl_message_end(out, start);
	}
}

/* ---- requests ---- */

static void put_resource(struct lbl_buffer *out, const struct lbl_given *given)
{
	struct lbl_given_cursor cursor = lbl_given_begin(given);
	struct lbl_label labels[LBL_RESOURCE_MAX];
	struct lbl_given_family family;
	struct lbl_point point;
	size_t start;

	lbl_given_family(&cursor, &family);
	lbl_given_sample(&cursor, labels, &point);
	start = lbl_message_begin(out, RESOURCE);
	put_attributes(out, ATTRIBUTES, &point.labels, NULL);
	lbl_message_end(out, start);
}

static void begin_request(struct lbl_otlp_writer *otlp)
{
	struct lbl_buffer *out = otlp->writer.out;
	size_t scope;

	if (otlp->in_request)
		return;
	otlp->in_request = true;
	otlp->resource = lbl_message_begin(out, REQUEST_RESOURCE_METRICS);
	if (otlp->given)
		put_resource(out, otlp->given);
	otlp->scope = lbl_message_begin(out, SCOPE_METRICS);
	scope = lbl_message_begin(out, SCOPE);
	put_text(out, SCOPE_NAME, lbl_text_of("lblatency"));
	lbl_message_end(out, scope);
}

/* ---- metrics ---- */

/* Gauge histograms have no equal, so each of their samples is a gauge. */
static uint32_t data_field(enum lbl_family_type type)
{
	switch (type) {
	case LBL_COUNTER:
		return SUM;
	case LBL_HISTOGRAM:
		return HISTOGRAM;
	case LBL_SUMMARY:
		return SUMMARY;
	default:
		return GAUGE;
	}
}

/* In the Unified Code for Units of Measure. */
static struct lbl_text unit_of(struct lbl_text unit)
{
	if (lbl_same_text(unit, lbl_text_of("seconds")))
		return lbl_text_of("s");
	if (lbl_same_text(unit, lbl_text_of("bytes")))
		return lbl_text_of("By");
	return unit;
}

static void end_metric(struct lbl_otlp_writer *otlp)
{
	struct lbl_buffer *out = otlp->writer.out;

	if (!otlp->name.at)
		return;
	otlp->name.at = NULL;
	if (otlp->field != GAUGE && otlp->field != SUMMARY)
		lbl_put_int(out, TEMPORALITY, CUMULATIVE);
	if (otlp->field == SUM)
		lbl_put_int(out, IS_MONOTONIC, 1);
	lbl_message_end(out, otlp->data);
	lbl_message_end(out, otlp->metric);
}

/* Be in the metric of that name. One without any points is left out. */
static void enter_metric(struct lbl_otlp_writer *otlp, struct lbl_text name, uint32_t field)
{
	const struct lbl_head *head = otlp->writer.head;
	struct lbl_buffer *out = otlp->writer.out;

	if (otlp->name.at && lbl_same_text(otlp->name, name))
		return;
	end_metric(otlp);
	begin_request(otlp);
	otlp->name = name;
	otlp->field = field;
	otlp->metric = lbl_message_begin(out, METRICS);
	put_text(out, NAME, name);
	put_text(out, DESCRIPTION, head->help);
	put_text(out, UNIT, unit_of(head->unit));
	otlp->data = lbl_message_begin(out, field);
}

static void put_times(struct lbl_otlp_writer *otlp, uint64_t started_ns, uint64_t time_ns)
{
	if (started_ns)
		lbl_put_fixed(otlp->writer.out, START, started_ns);
	lbl_put_fixed(otlp->writer.out, TIME, time_ns);
}

/* ---- exponential histograms ---- */

/* An index is that of the bucket's lower bound here, so one less than Prometheus'. */
static void put_dense(struct lbl_buffer *out, const struct lbl_native *native)
{
	int32_t index = native->index[0];
	size_t positive = lbl_message_begin(out, POSITIVE), counts, i = 0;
	char *to;

	lbl_put_int(out, OFFSET, lbl_zigzag(index - 1LL));
	counts = lbl_message_begin(out, DENSE_COUNTS);
	to = lbl_buffer_room(out, LBL_NATIVE_BUCKETS_MAX * LBL_VARINT_MAX);
	if (!to)
		return;
	for (; i < native->n; index++)
		to = lbl_write_varint(to, index == native->index[i] ? native->count[i++] : 0);
	out->n = (size_t)(to - out->at);
	lbl_message_end(out, counts);
	lbl_message_end(out, positive);
}

static void histogram(struct lbl_writer *writer, const struct lbl_counts *counts)
{
	struct lbl_otlp_writer *otlp = of(writer);
	struct lbl_buffer *out = writer->out;
	size_t point;

	enter_metric(otlp, writer->head->name, EXPONENTIAL);
	lbl_native_read(&otlp->native, counts, otlp->schema, true);
	point = lbl_message_begin(out, POINTS);
	put_attributes(out, EXPONENTIAL_ATTRIBUTES, &counts->labels, NULL);
	put_times(otlp, counts->started_ns, otlp->time_ns);
	lbl_put_fixed(out, POINT_COUNT, counts->row->count);
	lbl_put_double(out, POINT_SUM, lbl_counts_sum(counts));
	lbl_put_int(out, SCALE, lbl_zigzag(otlp->native.schema));
	lbl_put_fixed(out, ZERO_COUNT, otlp->native.zero_count);
	if (otlp->native.n)
		put_dense(out, &otlp->native);
	lbl_put_double(out, ZERO_THRESHOLD, ldexp(1, LBL_ZERO_LOG2));
	lbl_message_end(out, point);
}

/* ---- samples of which each is a point ---- */

static void put_number(struct lbl_otlp_writer *otlp, const struct lbl_point *sample)
{
	const struct lbl_head *head = otlp->writer.head;
	bool is_counter = head->type == LBL_COUNTER;
	struct lbl_buffer *out = otlp->writer.out;
	size_t point;

	enter_metric(otlp, is_counter ? head->name : sample->name, data_field(head->type));
	point = lbl_message_begin(out, POINTS);
	put_times(otlp, is_counter ? sample->started_ns : 0,
		  isnan(sample->timestamp) ? otlp->time_ns : (uint64_t)(sample->timestamp * 1e9));
	lbl_put_double(out, NUMBER_DOUBLE, sample->value);
	put_attributes(out, NUMBER_ATTRIBUTES, &sample->labels, NULL);
	lbl_message_end(out, point);
}

/* ---- samples that make a histogram or a summary together ---- */

/* Put it where the point's own fields have been put already. */
static void put_joint_histogram(struct lbl_otlp_writer *otlp)
{
	struct lbl_buffer *out = otlp->writer.out;

	if (otlp->counts.n == otlp->bounds.n) { /* there was no +Inf, whose count is that of all */
		uint64_t rest = (uint64_t)fmax(otlp->count - otlp->cumulative, 0);

		lbl_put(&otlp->counts, &rest, sizeof(rest));
	}
	lbl_put_bytes(out, BUCKET_COUNTS, otlp->counts.at, otlp->counts.n);
	lbl_put_bytes(out, EXPLICIT_BOUNDS, otlp->bounds.at, otlp->bounds.n);
}

static void put_joint(struct lbl_otlp_writer *otlp)
{
	enum lbl_family_type type = otlp->writer.head->type;
	struct lbl_buffer *out = otlp->writer.out;
	size_t point;

	if (!otlp->is_joining)
		return;
	enter_metric(otlp, otlp->writer.head->name, data_field(type));
	point = lbl_message_begin(out, POINTS);
	put_times(otlp, 0, otlp->time_ns);
	lbl_put_fixed(out, POINT_COUNT, (uint64_t)fmax(otlp->count, 0));
	if (!isnan(otlp->sum))
		lbl_put_double(out, POINT_SUM, otlp->sum);
	if (type == LBL_HISTOGRAM)
		put_joint_histogram(otlp);
	else
		lbl_put(out, otlp->quantiles.at, otlp->quantiles.n);
	lbl_put(out, otlp->joint.labels.at, otlp->joint.labels.n);
	lbl_message_end(out, point);
	otlp->is_joining = false;
}

static void begin_joint(struct lbl_otlp_writer *otlp)
{
	put_joint(otlp);
	lbl_joint_begin(&otlp->joint);
	otlp->is_joining = true;
	otlp->bounds.n = otlp->counts.n = otlp->quantiles.n = 0;
	otlp->cumulative = otlp->count = 0;
	otlp->sum = NAN;
}

static void add_quantile(struct lbl_otlp_writer *otlp, const struct lbl_point *sample)
{
	size_t start = lbl_message_begin(&otlp->quantiles, QUANTILE_VALUES);

	lbl_put_double(&otlp->quantiles, QUANTILE, sample->bound);
	lbl_put_double(&otlp->quantiles, QUANTILE_VALUE, sample->value);
	lbl_message_end(&otlp->quantiles, start);
}

static void add_bucket(struct lbl_otlp_writer *otlp, const struct lbl_point *sample)
{
	uint64_t count = (uint64_t)fmax(sample->value - otlp->cumulative, 0);

	lbl_put(&otlp->counts, &count, sizeof(count));
	if (isfinite(sample->bound))
		lbl_put(&otlp->bounds, &sample->bound, sizeof(sample->bound));
	otlp->cumulative = sample->value;
}

static void join(struct lbl_otlp_writer *otlp, const struct lbl_point *sample)
{
	enum lbl_family_type type = otlp->writer.head->type;

	otlp->joint.next.n = 0;
	put_attributes(&otlp->joint.next,
		       type == LBL_SUMMARY ? SUMMARY_ATTRIBUTES : HISTOGRAM_ATTRIBUTES,
		       &sample->labels, lbl_joining_label(type));
	if (!otlp->is_joining || !lbl_joint_continues(&otlp->joint))
		begin_joint(otlp);
	if (!isnan(sample->bound) && type == LBL_SUMMARY)
		add_quantile(otlp, sample);
	else if (!isnan(sample->bound))
		add_bucket(otlp, sample);
	else if (lbl_ends_with(sample->name, "count"))
		otlp->count = sample->value;
	else
		otlp->sum = sample->value;
}

/* ---- the writer ---- */

static void begin(struct lbl_writer *writer, const struct lbl_head *head)
{
	writer->head = head;
}

static void sample(struct lbl_writer *writer, const struct lbl_point *point)
{
	if (writer->head->type == LBL_HISTOGRAM || writer->head->type == LBL_SUMMARY)
		join(of(writer), point);
	else
		put_number(of(writer), point);
}

static void end(struct lbl_writer *writer)
{
	struct lbl_otlp_writer *otlp = of(writer);

	put_joint(otlp);
	end_metric(otlp);
	if (otlp->joint.labels.err || otlp->joint.next.err || otlp->bounds.err ||
	    otlp->counts.err || otlp->quantiles.err)
		writer->out->err = -ENOMEM;
}

/* What comes next begins a request of its own, and goes on with its metric there. */
static void settle(struct lbl_writer *writer)
{
	struct lbl_otlp_writer *otlp = of(writer);

	if (!otlp->in_request)
		return;
	end_metric(otlp);
	lbl_message_end(writer->out, otlp->scope);
	lbl_message_end(writer->out, otlp->resource);
	otlp->in_request = false;
}

static void destroy(struct lbl_writer *writer)
{
	struct lbl_otlp_writer *otlp = of(writer);

	lbl_joint_release(&otlp->joint);
	lbl_buffer_release(&otlp->bounds);
	lbl_buffer_release(&otlp->counts);
	lbl_buffer_release(&otlp->quantiles);
}

static const struct lbl_writer_ops ops = { begin,  sample, histogram, end,
					   settle, settle, destroy,   LBL_ALWAYS };

void lbl_otlp_init(struct lbl_otlp_writer *otlp, struct lbl_buffer *out, int schema,
		   const struct lbl_given *resource, uint64_t time_ns)
{
	*otlp = (struct lbl_otlp_writer){ .writer = { .ops = &ops, .out = out },
					  .schema = schema,
					  .given = resource,
					  .time_ns = time_ns };
}
