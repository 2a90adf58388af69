// SPDX-License-Identifier: MIT
#include <stdio.h>
#include <stdlib.h>

#include "render/labels.h"
#include "render/walk.h"
#include "track/state.h"

/* Rows and samples between two looks at how much was written. */
enum { SOME = 16 };

/* ---- families of the table ---- */

/* Write the samples of the struct `of`, which has the labels given. */
static void write_samples(struct lbl_walk *walk, const struct lbl_own_labels *labels,
			  const void *of, bool counted, uint64_t started_ns)
{
	const struct lbl_family *family = walk->family;
	size_t i;

	for (i = 0; i < family->n_samples; i++) {
		const struct lbl_sample *sample = &family->samples[i];
		uint64_t value = lbl_sample_value(sample, of);
		struct lbl_own_labels all = *labels;
		struct lbl_point point = { .name = lbl_text_of(walk->name),
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

static void write_histogram(struct lbl_walk *walk, const struct lbl_shown_tracker *shown,
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

static void write_backend(struct lbl_walk *walk, const struct lbl_shown_tracker *shown,
			  const struct lbl_snapshot *snapshot, size_t i)
{
	const struct lbl_backend_snapshot *row = &snapshot->rows[i];
	struct lbl_own_labels labels = { .n = 0 };

	lbl_add_backend(&labels, shown, row);
	lbl_add_tracker(&labels, shown);
	if (walk->family->type == LBL_HISTOGRAM)
		write_histogram(walk, shown, snapshot, row, &labels);
	else
		write_samples(walk, &labels, row, true, shown->stats.started_ns);
}

/* Write some backends; returns whether there are more. */
static bool write_backends(struct lbl_walk *walk, const struct lbl_shown_tracker *shown)
{
	bool is_histogram = walk->family->type == LBL_HISTOGRAM;
	const struct lbl_snapshot *snapshot =
		shown->snapshots[is_histogram ? walk->family->metric : LBL_LIFETIME];
	size_t i;

	for (i = 0; snapshot && i < SOME && walk->row < snapshot->n_rows; i++)
		write_backend(walk, shown, snapshot, walk->row++);
	return snapshot && walk->row < snapshot->n_rows;
}

/* Write some samples of a tracker; returns whether there are more. */
static bool write_tracker(struct lbl_walk *walk, const struct lbl_shown_tracker *shown)
{
	struct lbl_own_labels labels = { .n = 0 };

	if (shown->stats.is_copy && !walk->family->in_copy)
		return false;
	if (walk->family->scope == LBL_PER_BACKEND)
		return write_backends(walk, shown);
	if (walk->family->scope == LBL_PER_TRACKER) {
		lbl_add_tracker(&labels, shown);
		write_samples(walk, &labels, &shown->stats, shown->stats.events.counted,
			      shown->stats.created_ns);
	}
	return false;
}

/* ---- what was given ---- */

static void next_given(struct lbl_walk *walk)
{
	walk->has_given = walk->n_given;
	if (!walk->n_given)
		return;
	walk->n_given--;
	lbl_given_family(&walk->cursor, &walk->given);
}

/* Whether the next family that was given is that of the table, or one that is not in the table. */
static bool is_given(const struct lbl_walk *walk, uint32_t index)
{
	return walk->has_given && walk->given.index == index;
}

/* Write some samples; returns whether there are more. */
static bool write_given(struct lbl_walk *walk)
{
	struct lbl_point point;
	size_t i;

	for (i = 0; i < SOME && walk->given.n_samples; i++, walk->given.n_samples--) {
		lbl_given_sample(&walk->cursor, walk->given_labels, &point);
		walk->writer->ops->sample(walk->writer, &point);
	}
	if (walk->given.n_samples)
		return true;
	next_given(walk);
	return false;
}

/* ---- pages ---- */

/* Families of latencies that nobody records, or of what nobody was asked for, are left out. */
static bool is_present(const struct lbl_walk *walk, uint32_t index)
{
	const struct lbl_page *page = walk->page;
	size_t i;

	if (is_given(walk, index))
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

static void begin_family(struct lbl_walk *walk, uint32_t index)
{
	const struct lbl_family *family = walk->family;

	walk->index = index;
	walk->shown = walk->row = 0;
	walk->in_family = true;
	if (family) {
		walk->head =
			(struct lbl_head){ lbl_text_of(family->name), lbl_text_of(family->help),
					   lbl_text_of(lbl_family_unit(family)), family->type };
		snprintf(walk->name, sizeof(walk->name), "%s%s", family->name,
			 family->type == LBL_COUNTER ? "_total" : "");
	} else {
		walk->head = walk->given.head;
	}
	walk->writer->ops->begin(walk->writer, &walk->head);
}

/* Begin the next family that is to be written; returns false if there is none. */
static bool next_family(struct lbl_walk *walk)
{
	size_t n;
	const struct lbl_family *families = lbl_families(&n);

	while (walk->next < n) {
		uint32_t index = walk->next++;

		walk->family = &families[index];
		if (is_present(walk, index)) {
			begin_family(walk, index);
			return true;
		}
	}
	walk->family = NULL;
	if (!walk->has_given)
		return false;
	begin_family(walk, LBL_NOT_IN_TABLE);
	return true;
}

/* The samples of all trackers come under one head, then what was given. */
static void continue_family(struct lbl_walk *walk)
{
	if (walk->family && walk->shown < walk->page->n_shown) {
		if (write_tracker(walk, &walk->page->shown[walk->shown]))
			return;
		walk->shown++;
		walk->row = 0;
		return;
	}
	if (is_given(walk, walk->index) && write_given(walk))
		return;
	walk->writer->ops->end(walk->writer);
	walk->in_family = false;
}

bool lbl_walk_next(struct lbl_walk *walk)
{
	if (walk->in_family)
		continue_family(walk);
	else if (!next_family(walk)) {
		walk->writer->ops->finish(walk->writer);
		return false;
	}
	return !walk->writer->out->err;
}

int lbl_walk_init(struct lbl_walk *walk, const struct lbl_page *page, struct lbl_writer *writer)
{
	*walk = (struct lbl_walk){ .page = page, .writer = writer };
	if (!page->given)
		return 0;
	walk->cursor = lbl_given_begin(page->given);
	walk->n_given = page->given->n_families;
	walk->given_labels = calloc(page->given->max_labels + 1, sizeof(struct lbl_label));
	if (!walk->given_labels)
		return -ENOMEM;
	next_given(walk);
	return 0;
}

void lbl_walk_destroy(struct lbl_walk *walk)
{
	free(walk->given_labels);
}
