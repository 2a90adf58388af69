// SPDX-License-Identifier: MIT
#include "hist/read.h"
#include "render/number.h"
#include "render/text.h"

static struct lbl_text_writer *of(struct lbl_writer *writer)
{
	return (struct lbl_text_writer *)writer;
}

/* ---- words ---- */

/* Backslashes, newlines and, if `quotes`, quotation marks take a backslash. */
static void put_escaped(struct lbl_buffer *out, struct lbl_text text, bool quotes)
{
	const char *at = text.at, *end = text.at + text.n, *plain = at;

	for (; at < end; at++) {
		if (likely(*at != '\\' && *at != '\n' && (*at != '"' || !quotes)))
			continue;
		lbl_put(out, plain, (size_t)(at - plain));
		lbl_put(out, *at == '\n' ? "\\n" : *at == '"' ? "\\\"" : "\\\\", 2);
		plain = at + 1;
	}
	lbl_put(out, plain, (size_t)(at - plain));
}

static void put_labels(struct lbl_buffer *out, const struct lbl_labels *labels)
{
	size_t i;

	for (i = 0; i < labels->n; i++) {
		if (i)
			lbl_put(out, ",", 1);
		lbl_put(out, labels->at[i].name.at, labels->at[i].name.n);
		lbl_put(out, "=\"", 2);
		put_escaped(out, labels->at[i].value, true);
		lbl_put(out, "\"", 1);
	}
}

static void put_double(struct lbl_buffer *out, double value)
{
	char number[LBL_NUMBER_MAX];

	lbl_put(out, number, (size_t)(lbl_write_double(number, value) - number));
}

/* ---- the head of a family ---- */

static const char *type_name(enum lbl_family_type type, bool is_openmetrics)
{
	switch (type) {
	case LBL_COUNTER:
		return "counter";
	case LBL_GAUGE:
		return "gauge";
	case LBL_HISTOGRAM:
		return "histogram";
	case LBL_SUMMARY:
		return "summary";
	case LBL_INFO:
		return is_openmetrics ? "info" : "gauge";
	case LBL_STATESET:
		return is_openmetrics ? "stateset" : "gauge";
	case LBL_GAUGE_HISTOGRAM:
		return is_openmetrics ? "gaugehistogram" : "histogram";
	case LBL_UNKNOWN:
		break;
	}
	return is_openmetrics ? "unknown" : "untyped";
}

static void put_head(struct lbl_text_writer *text, struct lbl_buffer *out, const char *suffix,
		     const char *type)
{
	const struct lbl_head *head = text->writer.head;

	lbl_put_text(out, "# HELP ");
	lbl_put(out, head->name.at, head->name.n);
	lbl_put_text(out, suffix);
	lbl_put(out, " ", 1);
	put_escaped(out, head->help, text->is_openmetrics);
	lbl_put_text(out, "\n# TYPE ");
	lbl_put(out, head->name.at, head->name.n);
	lbl_put_text(out, suffix);
	lbl_put(out, " ", 1);
	lbl_put_text(out, type);
	lbl_put(out, "\n", 1);
}

/* In 0.0.4, the name in the head is that of the samples. */
static const char *suffix_of(const struct lbl_text_writer *text)
{
	enum lbl_family_type type = text->writer.head->type;

	if (text->is_openmetrics)
		return "";
	return type == LBL_COUNTER ? "_total" : type == LBL_INFO ? "_info" : "";
}

/* ---- histograms: what all rows have in common is made once ---- */

static void make_start(struct lbl_text_writer *text, size_t i, const char *suffix)
{
	struct lbl_text name = text->writer.head->name;

	lbl_put(&text->starts, name.at, name.n);
	lbl_put_text(&text->starts, suffix);
	text->ends[i] = text->starts.n;
}

static void make_bucket_start(struct lbl_text_writer *text, size_t i, double bound)
{
	make_start(text, i, "_bucket{le=\"");
	put_double(&text->starts, bound);
	lbl_put_text(&text->starts, "\",");
	text->ends[i] = text->starts.n;
}

static void make_starts(struct lbl_text_writer *text, const double *bounds, uint32_t n)
{
	uint32_t i;

	text->started = bounds;
	text->starts.n = 0;
	for (i = 0; i < n; i++)
		make_bucket_start(text, i, bounds[i]);
	make_bucket_start(text, n, INFINITY);
	make_start(text, n + 1, "_count{");
	make_start(text, n + 2, "_sum{");
}

/* Write all but the value of line `i`. The caller has made room. */
static inline char *write_start(const struct lbl_text_writer *text, char *to, size_t i)
{
	size_t first = i ? text->ends[i - 1] : 0, n = text->ends[i] - first;

	memcpy(to, text->starts.at + first, n);
	memcpy(to + n, text->labels.at, text->labels.n);
	return to + n + text->labels.n;
}

static inline char *write_count(const struct lbl_text_writer *text, char *to, size_t i,
				uint64_t count)
{
	to = lbl_write_u64(write_start(text, to, i), count);
	memcpy(to, ".0\n", 3);
	return to + 3;
}

static void histogram(struct lbl_writer *writer, const struct lbl_counts *counts)
{
	struct lbl_text_writer *text = of(writer);
	const struct lbl_backend_snapshot *row = counts->row;
	uint32_t n = counts->buckets->n_classic, i;
	uint64_t cumulative[LBL_CLASSIC_MAX];
	char *to;

	if (text->started != counts->bounds)
		make_starts(text, counts->bounds, n);
	text->labels.n = 0;
	put_labels(&text->labels, &counts->labels);
	lbl_put(&text->labels, "} ", 2);
	to = lbl_buffer_room(writer->out,
			     text->starts.n + (n + 3) * (text->labels.n + LBL_NUMBER_MAX));
	if (!to || text->labels.err || text->starts.err)
		return;
	lbl_hist_classic(counts->buckets, row->n, counts->slots, counts->counts, cumulative);
	for (i = 0; i < n; i++)
		to = write_count(text, to, i, cumulative[i]);
	to = write_count(text, to, n, row->count);
	to = write_count(text, to, n + 1, row->count);
	to = write_start(text, to, n + 2);
	to = lbl_write_seconds(to, (lbl_u128)row->sum_hi << 64 | row->sum_lo);
	*to++ = '\n';
	writer->out->n = (size_t)(to - writer->out->at);
}

/* ---- families ---- */

static void begin(struct lbl_writer *writer, const struct lbl_head *head)
{
	struct lbl_text_writer *text = of(writer);

	writer->head = head;
	text->started = NULL;
	put_head(text, writer->out, suffix_of(text), type_name(head->type, text->is_openmetrics));
	if (text->is_openmetrics && head->unit.n) {
		lbl_put_text(writer->out, "# UNIT ");
		lbl_put(writer->out, head->name.at, head->name.n);
		lbl_put(writer->out, " ", 1);
		lbl_put(writer->out, head->unit.at, head->unit.n);
		lbl_put(writer->out, "\n", 1);
	}
}

/* The buffer of a sample: two of a gauge histogram are families of their own in 0.0.4. */
static struct lbl_buffer *buffer_of(struct lbl_text_writer *text, struct lbl_text name)
{
	static const char *const suffixes[] = { "_gcount", "_gsum" };
	size_t i;

	if (text->is_openmetrics || text->writer.head->type != LBL_GAUGE_HISTOGRAM)
		return text->writer.out;
	for (i = 0; i < 2; i++) {
		struct lbl_buffer *apart = &text->apart[i];

		if (!lbl_ends_with(name, suffixes[i]))
			continue;
		if (!apart->n)
			put_head(text, apart, suffixes[i], "gauge");
		return apart;
	}
	return text->writer.out;
}

static void put_timestamp(struct lbl_text_writer *text, struct lbl_buffer *out, double timestamp)
{
	char number[LBL_NUMBER_MAX], *to = number;

	if (isnan(timestamp))
		return;
	lbl_put(out, " ", 1);
	if (text->is_openmetrics) {
		put_double(out, timestamp);
		return;
	}
	if (timestamp < 0)
		*to++ = '-';
	to = lbl_write_u64(to, (uint64_t)(fabs(timestamp) * 1000));
	lbl_put(out, number, (size_t)(to - number));
}

static void sample(struct lbl_writer *writer, const struct lbl_point *point)
{
	struct lbl_text_writer *text = of(writer);
	struct lbl_buffer *out = buffer_of(text, point->name);

	lbl_put(out, point->name.at, point->name.n);
	if (point->labels.n) {
		lbl_put(out, "{", 1);
		put_labels(out, &point->labels);
		lbl_put(out, "}", 1);
	}
	lbl_put(out, " ", 1);
	put_double(out, point->value);
	put_timestamp(text, out, point->timestamp);
	lbl_put(out, "\n", 1);
}

static void end(struct lbl_writer *writer)
{
	struct lbl_text_writer *text = of(writer);
	size_t i;

	for (i = 0; i < 2; i++) {
		lbl_put(writer->out, text->apart[i].at, text->apart[i].n);
		text->apart[i].n = 0;
		if (text->apart[i].err)
			writer->out->err = text->apart[i].err;
	}
	if (text->labels.err || text->starts.err)
		writer->out->err = -ENOMEM;
}

static void finish(struct lbl_writer *writer)
{
	if (of(writer)->is_openmetrics)
		lbl_put_text(writer->out, "# EOF\n");
}

static void destroy(struct lbl_writer *writer)
{
	struct lbl_text_writer *text = of(writer);

	lbl_buffer_release(&text->starts);
	lbl_buffer_release(&text->labels);
	lbl_buffer_release(&text->apart[0]);
	lbl_buffer_release(&text->apart[1]);
}

static const struct lbl_writer_ops ops = { begin,  sample, histogram, end,
					   finish, NULL,   destroy,   LBL_ALWAYS };

void lbl_text_init(struct lbl_text_writer *text, struct lbl_buffer *out, bool is_openmetrics)
{
	*text = (struct lbl_text_writer){ .writer = { .ops = &ops, .out = out },
					  .is_openmetrics = is_openmetrics };
}
