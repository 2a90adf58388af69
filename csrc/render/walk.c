// SPDX-License-Identifier: MIT
#include <stdio.h>
#include <stdlib.h>

#include "render/labels.h"
#include "render/walk.h"
#include "track/state.h"

/* ---- families of the table ---- */

struct walk {
	const struct lbl_page *page;
	struct lbl_writer *writer;
	const struct lbl_family *family; /* NULL beyond the table */
	struct lbl_text name; /* of the family's samples */
	struct lbl_label *given_labels;
	struct lbl_given_cursor cursor;
	size_t n_given; /* families that the cursor is yet to read */
	struct lbl_given_family given; /* the next one, which was read already */
};

/* Write the samples of the struct `of`, which has the labels given. */
static void write_samples(struct walk *walk, const struct lbl_own_labels *labels, const void *of,
			  bool counted, uint64_t started_ns)
{
	const struct lbl_family *family = walk->family;
	size_t i;

	for (i = 0; i < family->n_samples; i++) {
		const struct lbl_sample *sample = &family->samples[i];
		uint64_t value = lbl_sample_value(sample, of);
		struct lbl_own_labels all = *labels;
		struct lbl_point point = { .name = walk->name,
					   .value = (double)value,
					   .timestamp = NAN,
					   .bound = NAN,
					   .started_ns = started_ns };

		if ((sample->of_producers && !counted) || (!value && family->is_sparse))
			continue;
		if (sample->label_value)
			lbl_add_label(&all, family->label, lbl_text_of(sample->label_value));
		point.labels = (struct lbl_labels){ all.at, all.n };
		walk->writer->ops->sample(walk->writer, &point);
	}
}

static void write_histogram(struct walk *walk, const struct lbl_shown_tracker *shown,
			    const struct lbl_snapshot *snapshot,
			    const struct lbl_backend_snapshot *row,
			    const struct lbl_own_labels *labels)
{
	enum lbl_metric metric = walk->family->metric;
	const struct lbl_counts counts = { .labels = { labels->at, labels->n },
					   .buckets = shown->tracker->buckets[metric],
					   .bounds = shown->how.bounds[metric],
					   .row = row,
					   .slots = snapshot->slots + row->first,
					   .counts = snapshot->counts + row->first,
					   .started_ns = shown->stats.started_ns };

	if (row->count)
		walk->writer->ops->histogram(walk->writer, &counts);
}

static void write_backends(struct walk *walk, const struct lbl_shown_tracker *shown)
{
	bool is_histogram = walk->family->type == LBL_HISTOGRAM;
	const struct lbl_snapshot *snapshot =
		shown->snapshots[is_histogram ? walk->family->metric : LBL_LIFETIME];
	size_t i;

	for (i = 0; snapshot && i < snapshot->n_rows; i++) {
		const struct lbl_backend_snapshot *row = &snapshot->rows[i];
		struct lbl_own_labels labels = { .n = 0 };

		lbl_add_backend(&labels, shown, row);
		lbl_add_tracker(&labels, shown);
		if (is_histogram)
			write_histogram(walk, shown, snapshot, row, &labels);
		else
			write_samples(walk, &labels, row, true, shown->stats.started_ns);
	}
}

static void write_tracker(struct walk *walk, const struct lbl_shown_tracker *shown)
{
	struct lbl_own_labels labels = { .n = 0 };

	if (shown->stats.is_copy && !walk->family->in_copy)
		return;
	if (walk->family->scope == LBL_PER_BACKEND) {
		write_backends(walk, shown);
	} else if (walk->family->scope == LBL_PER_TRACKER) {
		lbl_add_tracker(&labels, shown);
		write_samples(walk, &labels, &shown->stats, shown->stats.events.counted,
			      shown->stats.created_ns);
	}
}

/* ---- what was given ---- */

static void next_given(struct walk *walk)
{
	if (walk->n_given) {
		walk->n_given--;
		lbl_given_family(&walk->cursor, &walk->given);
	} else {
		walk->given.index = LBL_NOT_IN_TABLE;
		walk->given.head.name.at = NULL;
	}
}

static bool has_given(const struct walk *walk)
{
	return walk->given.head.name.at;
}

static void write_given(struct walk *walk)
{
	struct lbl_point point;
	uint32_t i;

	for (i = 0; i < walk->given.n_samples; i++) {
		lbl_given_sample(&walk->cursor, walk->given_labels, &point);
		walk->writer->ops->sample(walk->writer, &point);
	}
	next_given(walk);
}

/* ---- pages ---- */

/* Families of latencies that nobody records, or of what nobody was asked for, are left out. */
static bool is_present(const struct walk *walk, uint32_t index)
{
	const struct lbl_page *page = walk->page;
	size_t i;

	if (walk->given.index == index && has_given(walk))
		return true;
	if (walk->family->type == LBL_HISTOGRAM) {
		for (i = 0; i < page->n_shown; i++) {
			if (page->shown[i].snapshots[walk->family->metric])
				return true;
		}
		return false;
	}
	return walk->family->scope == LBL_PER_BACKEND || walk->family->scope == LBL_PER_TRACKER;
}

/* The samples of all trackers come under one head. */
static void write_family(struct walk *walk, uint32_t index)
{
	const struct lbl_family *family = walk->family;
	const struct lbl_head head = { lbl_text_of(family->name), lbl_text_of(family->help),
				       lbl_text_of(lbl_family_unit(family)), family->type };
	char name[128];
	size_t i;

	snprintf(name, sizeof(name), "%s%s", family->name,
		 family->type == LBL_COUNTER ? "_total" : "");
	walk->name = lbl_text_of(name);
	walk->writer->ops->begin(walk->writer, &head);
	for (i = 0; i < walk->page->n_shown; i++)
		write_tracker(walk, &walk->page->shown[i]);
	if (walk->given.index == index && has_given(walk))
		write_given(walk);
	walk->writer->ops->end(walk->writer);
}

static void write_page(struct walk *walk)
{
	uint32_t index;
	size_t n;
	const struct lbl_family *families = lbl_families(&n);

	next_given(walk);
	for (index = 0; index < n; index++) {
		walk->family = &families[index];
		if (is_present(walk, index))
			write_family(walk, index);
	}
	while (has_given(walk)) {
		struct lbl_head head = walk->given.head;

		walk->writer->ops->begin(walk->writer, &head);
		write_given(walk);
		walk->writer->ops->end(walk->writer);
	}
	walk->writer->ops->finish(walk->writer);
}

int lbl_walk(const struct lbl_page *page, struct lbl_writer *writer)
{
	struct walk walk = { .page = page, .writer = writer };

	if (page->given) {
		walk.cursor = lbl_given_begin(page->given);
		walk.n_given = page->given->n_families;
		walk.given_labels = calloc(page->given->max_labels + 1, sizeof(struct lbl_label));
		if (!walk.given_labels)
			return -ENOMEM;
	}
	write_page(&walk);
	free(walk.given_labels);
	return writer->out->err;
}
