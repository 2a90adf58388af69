/* SPDX-License-Identifier: MIT */
/*
 * What a format has to write. The walk over a page calls begin(), then any number of sample() and
 * histogram(), then end(), for each family; finish() comes last. Errors stay in the buffer. What
 * is written may be taken from the buffer as soon as it is settled.
 */
#ifndef LBL_RENDER_WRITER_H
#define LBL_RENDER_WRITER_H

#include <math.h>

#include "render/buffer.h"
#include "render/families.h"

/* Text of any bytes; UTF-8 where formats say so. */
struct lbl_text {
	const char *at;
	size_t n;
};

static inline struct lbl_text lbl_text_of(const char *text)
{
	return (struct lbl_text){ text, strlen(text) };
}

static inline bool lbl_same_text(struct lbl_text a, struct lbl_text b)
{
	return a.n == b.n && (!a.n || !memcmp(a.at, b.at, a.n));
}

struct lbl_label {
	struct lbl_text name, value;
};

/* In ascending order of names. */
struct lbl_labels {
	const struct lbl_label *at;
	size_t n;
};

struct lbl_head {
	struct lbl_text name; /* without _total and _info */
	struct lbl_text help, unit; /* the unit may be empty */
	enum lbl_family_type type;
};

struct lbl_point {
	struct lbl_text name; /* the family's, with the suffix of the text formats */
	struct lbl_labels labels;
	double value;
	double timestamp; /* Unix seconds; NaN if there is none */
	double bound; /* the label `le` or `quantile` as a number; NaN if it has none */
	uint64_t started_ns; /* of a counter, when it was 0, by CLOCK_REALTIME; 0 if nobody knows */
};

/* The counts of one backend and one latency, as (slot, count) pairs. */
struct lbl_counts {
	struct lbl_labels labels;
	const struct lbl_buckets *buckets;
	const double *bounds; /* the classic ones, seconds, as given; +Inf is not among them */
	const struct lbl_backend_snapshot *row;
	const uint16_t *slots;
	const uint64_t *counts;
	uint64_t started_ns; /* when all counts were 0, by CLOCK_REALTIME */
};

struct lbl_writer;

/* When nothing that was written is changed any more, or settle() sees to it. */
enum lbl_settled { LBL_ALWAYS, LBL_BETWEEN_FAMILIES };

struct lbl_writer_ops {
	void (*begin)(struct lbl_writer *writer, const struct lbl_head *head);
	void (*sample)(struct lbl_writer *writer, const struct lbl_point *point);
	void (*histogram)(struct lbl_writer *writer, const struct lbl_counts *counts);
	void (*end)(struct lbl_writer *writer);
	void (*finish)(struct lbl_writer *writer);
	void (*settle)(struct lbl_writer *writer); /* may be NULL */
	void (*destroy)(struct lbl_writer *writer);
	enum lbl_settled settled;
};

struct lbl_writer {
	const struct lbl_writer_ops *ops;
	const struct lbl_head *head; /* between begin() and end() */
	struct lbl_buffer *out;
};

static inline bool lbl_ends_with(struct lbl_text text, const char *suffix)
{
	size_t n = strlen(suffix);

	return text.n >= n && !memcmp(text.at + text.n - n, suffix, n);
}

#endif
