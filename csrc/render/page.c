// SPDX-License-Identifier: MIT
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "render/number.h"
#include "render/page.h"
#include "render/text.h"
#include "track/state.h"

/* ---- reading ---- */

struct shown {
	struct lbl_tracker *tracker;
	struct lbl_shown how;
	struct lbl_tracker_stats stats;
	struct lbl_snapshot *snapshots[LBL_METRICS]; /* NULL for latencies that are not recorded */
};

struct lbl_page {
	struct shown *shown;
	size_t n_shown;
	const struct lbl_given *given; /* may be NULL */
};

int lbl_page_new(struct lbl_page **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : -ENOMEM;
}

static void release(struct shown *shown)
{
	size_t i;

	for (i = 0; i < LBL_METRICS; i++)
		lbl_snapshot_free(shown->snapshots[i]);
}

void lbl_page_free(struct lbl_page *page)
{
	size_t i;

	if (!page)
		return;
	for (i = 0; i < page->n_shown; i++)
		release(&page->shown[i]);
	free(page->shown);
	free(page);
}

/* Whether anything was counted for a backend since the last reset. */
static bool has_counts(const struct shown *shown, const struct lbl_backend_snapshot *row)
{
	uint64_t any = row->opened | row->probes | row->count;
	size_t i;

	if (!row->name && row->port == LBL_REMOVED && !shown->how.with_removed)
		return false;
	for (i = 0; i < LBL_REASONS; i++)
		any |= row->closed[i];
	return any;
}

static void keep_what_counts(const struct shown *shown, struct lbl_snapshot *snapshot)
{
	size_t i, n = 0;

	for (i = 0; i < snapshot->n_rows; i++) {
		if (has_counts(shown, &snapshot->rows[i]))
			snapshot->rows[n++] = snapshot->rows[i];
	}
	snapshot->n_rows = n;
}

static int read_all(struct shown *shown)
{
	int err = lbl_tracker_stats(shown->tracker, &shown->stats);
	size_t i;

	for (i = 0; i < LBL_METRICS && !err; i++) {
		err = lbl_tracker_snapshot_own(shown->tracker, i, &shown->snapshots[i]);
		if (!err)
			keep_what_counts(shown, shown->snapshots[i]);
		else if (err == -ENOENT)
			err = 0;
	}
	return err;
}

int lbl_page_add(struct lbl_page *page, struct lbl_tracker *tracker, const struct lbl_shown *how)
{
	struct shown *larger = reallocarray(page->shown, page->n_shown + 1, sizeof(*larger)),
		     *shown;
	int err;

	if (!larger)
		return -ENOMEM;
	page->shown = larger;
	shown = &larger[page->n_shown];
	*shown = (struct shown){ .tracker = tracker, .how = *how };
	err = read_all(shown);
	if (err)
		release(shown);
	else
		page->n_shown++;
	return err;
}

const struct lbl_snapshot *lbl_page_lifetimes(const struct lbl_page *page, size_t i)
{
	return page->shown[i].snapshots[LBL_LIFETIME];
}

void lbl_page_give(struct lbl_page *page, const struct lbl_given *given)
{
	page->given = given;
}

/* ---- labels ---- */

enum { OWN_LABELS = 5 };

static struct lbl_text text_of(const char *text)
{
	return (struct lbl_text){ text, strlen(text) };
}

/* The labels of a sample of the table, and the texts that they point to. */
struct labels {
	struct lbl_label at[OWN_LABELS];
	size_t n;
	char ip[INET6_ADDRSTRLEN], port[LBL_NUMBER_MAX];
};

static void add_label(struct labels *labels, const char *name, struct lbl_text value)
{
	size_t i = labels->n++;

	for (; i && strcmp(labels->at[i - 1].name.at, name) > 0; i--)
		labels->at[i] = labels->at[i - 1];
	labels->at[i] = (struct lbl_label){ text_of(name), value };
}

/* Write an address like inet_ntop(), which takes long for IPv4. */
static struct lbl_text write_ip(char *to, const uint8_t *addr)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	char *end = to;
	int i;

	if (memcmp(addr, mapped, sizeof(mapped))) {
		inet_ntop(AF_INET6, addr, to, INET6_ADDRSTRLEN);
		return text_of(to);
	}
	for (i = 12; i < 16; i++) {
		if (i > 12)
			*end++ = '.';
		end = lbl_write_u64(end, addr[i]);
	}
	return (struct lbl_text){ to, (size_t)(end - to) };
}

static void add_backend_labels(struct labels *labels, const struct shown *shown,
			       const struct lbl_backend_snapshot *row)
{
	struct lbl_text name, ip, port = { "0", 1 };

	if (row->name || row->port == LBL_OVERFLOW) {
		name.at = lbl_tracker_name_text(shown->tracker, row->name, &name.n);
		ip = name;
	} else {
		name = ip = text_of("removed");
	}
	if (row->name) {
		ip = write_ip(labels->ip, row->addr);
		port.at = labels->port;
		port.n = (size_t)(lbl_write_u64(labels->port, row->port) - labels->port);
	}
	add_label(labels, "proxy_name", name);
	add_label(labels, "target_ip", ip);
	add_label(labels, "target_port", port);
}

static void add_tracker_label(struct labels *labels, const struct shown *shown)
{
	if (shown->how.label)
		add_label(labels, "tracker",
			  (struct lbl_text){ shown->how.label, shown->how.label_bytes });
}

/* ---- the walk over the table ---- */

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
static void write_samples(struct walk *walk, const struct labels *labels, const void *of,
			  bool counted)
{
	const struct lbl_family *family = walk->family;
	size_t i;

	for (i = 0; i < family->n_samples; i++) {
		const struct lbl_sample *sample = &family->samples[i];
		uint64_t value = lbl_sample_value(sample, of);
		struct labels all = *labels;

		if ((sample->of_producers && !counted) || (!value && family->is_sparse))
			continue;
		if (sample->label_value)
			add_label(&all, family->label, text_of(sample->label_value));
		walk->writer->ops->sample(walk->writer, &(struct lbl_point){
								.name = walk->name,
								.labels = { all.at, all.n },
								.value = (double)value,
								.timestamp = NAN,
							});
	}
}

static void write_histogram(struct walk *walk, const struct shown *shown,
			    const struct lbl_snapshot *snapshot,
			    const struct lbl_backend_snapshot *row, const struct labels *labels)
{
	enum lbl_metric metric = walk->family->metric;

	if (!row->count)
		return;
	walk->writer->ops->histogram(walk->writer,
				     &(struct lbl_counts){
					     .labels = { labels->at, labels->n },
					     .buckets = shown->tracker->buckets[metric],
					     .bounds = shown->how.bounds[metric],
					     .row = row,
					     .slots = snapshot->slots + row->first,
					     .counts = snapshot->counts + row->first,
					     .started_ns = shown->stats.started_ns,
				     });
}

static void write_backends(struct walk *walk, const struct shown *shown)
{
	bool is_histogram = walk->family->type == LBL_HISTOGRAM;
	const struct lbl_snapshot *snapshot =
		shown->snapshots[is_histogram ? walk->family->metric : LBL_LIFETIME];
	size_t i;

	for (i = 0; snapshot && i < snapshot->n_rows; i++) {
		const struct lbl_backend_snapshot *row = &snapshot->rows[i];
		struct labels labels = { .n = 0 };

		add_backend_labels(&labels, shown, row);
		add_tracker_label(&labels, shown);
		if (is_histogram)
			write_histogram(walk, shown, snapshot, row, &labels);
		else
			write_samples(walk, &labels, row, true);
	}
}

static void write_tracker(struct walk *walk, const struct shown *shown)
{
	struct labels labels = { .n = 0 };

	if (shown->stats.is_copy && !walk->family->in_copy)
		return;
	if (walk->family->scope == LBL_PER_BACKEND) {
		write_backends(walk, shown);
	} else if (walk->family->scope == LBL_PER_TRACKER) {
		add_tracker_label(&labels, shown);
		write_samples(walk, &labels, &shown->stats, shown->stats.events.counted);
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
	const struct lbl_head head = { text_of(family->name), text_of(family->help),
				       text_of(lbl_family_unit(family)), family->type };
	char name[128];
	size_t i;

	snprintf(name, sizeof(name), "%s%s", family->name,
		 family->type == LBL_COUNTER ? "_total" : "");
	walk->name = text_of(name);
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

static int render(const struct lbl_page *page, struct lbl_writer *writer)
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

int lbl_page_render(const struct lbl_page *page, enum lbl_format format, char **ret, size_t *n)
{
	struct lbl_buffer out = { 0 };
	struct lbl_text_writer text;
	int err;

	lbl_text_init(&text, &out, format == LBL_OPENMETRICS);
	err = render(page, &text.writer);
	lbl_text_destroy(&text);
	if (err) {
		lbl_buffer_release(&out);
		return err;
	}
	*ret = out.at;
	*n = out.n;
	return 0;
}

void lbl_page_free_bytes(char *bytes)
{
	free(bytes);
}
