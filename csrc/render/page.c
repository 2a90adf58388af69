// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "hist/read.h"
#include "render/fold.h"
#include "render/number.h"
#include "render/page.h"
#include "track/state.h"

/* ---- reading ---- */

int lbl_page_new(struct lbl_page **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : -ENOMEM;
}

static void release(struct lbl_shown_tracker *shown)
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
static bool has_counts(const struct lbl_shown_tracker *shown,
		       const struct lbl_backend_snapshot *row)
{
	uint64_t any = row->opened | row->probes | row->count;
	size_t i;

	if (!row->name && row->port == LBL_REMOVED && !shown->how.with_removed)
		return false;
	for (i = 0; i < LBL_REASONS; i++)
		any |= row->closed[i];
	return any;
}

static void keep_what_counts(const struct lbl_shown_tracker *shown, struct lbl_snapshot *snapshot)
{
	size_t i, n = 0;

	for (i = 0; i < snapshot->n_rows; i++) {
		if (has_counts(shown, &snapshot->rows[i]))
			snapshot->rows[n++] = snapshot->rows[i];
	}
	snapshot->n_rows = n;
}

/* The same backends go in all snapshots: those that the lifetimes, which have all, do not keep. */
static int fold(struct lbl_shown_tracker *shown)
{
	struct lbl_snapshot *lifetimes = shown->snapshots[LBL_LIFETIME];
	uint64_t from;
	size_t i, folded;
	int err = lbl_fold_from(lifetimes, shown->how.max_backends, &from);

	for (i = LBL_METRICS; i-- && !err;) { /* lifetimes last: it is their number that counts */
		if (shown->snapshots[i])
			err = lbl_fold(shown->snapshots[i], from, &folded);
	}
	if (!err)
		shown->folded = folded;
	return err;
}

static int read_all(struct lbl_shown_tracker *shown)
{
	int err = lbl_tracker_stats(shown->tracker, &shown->stats);
	size_t i;

	for (i = 0; i < LBL_METRICS && !err; i++) {
		err = lbl_tracker_snapshot_own(shown->tracker, (enum lbl_metric)i,
					       &shown->snapshots[i]);
		if (!err)
			keep_what_counts(shown, shown->snapshots[i]);
		else if (err == -ENOENT)
			err = 0;
	}
	return err ? err : fold(shown);
}

int lbl_page_add(struct lbl_page *page, struct lbl_tracker *tracker, const struct lbl_shown *how)
{
	struct lbl_shown_tracker *larger = reallocarray(page->shown, page->n_shown + 1,
							sizeof(*larger)),
				 *shown;
	int err;

	if (!larger)
		return -ENOMEM;
	page->shown = larger;
	shown = &larger[page->n_shown];
	*shown = (struct lbl_shown_tracker){ .tracker = tracker, .how = *how };
	err = read_all(shown);
	if (err)
		release(shown);
	else
		page->n_shown++;
	page->read_ns = lbl_unix_ns();
	return err;
}

size_t lbl_page_folded(const struct lbl_page *page, size_t i)
{
	return page->shown[i].folded;
}

const struct lbl_snapshot *lbl_page_snapshot(const struct lbl_page *page, size_t i,
					     enum lbl_metric metric)
{
	return page->shown[i].snapshots[metric];
}

const struct lbl_tracker_stats *lbl_page_stats(const struct lbl_page *page, size_t i)
{
	return &page->shown[i].stats;
}

void lbl_page_classic(const struct lbl_page *page, size_t i, enum lbl_metric metric,
		      uint64_t *ret_counts, double *ret_sums)
{
	const struct lbl_buckets *buckets = page->shown[i].tracker->buckets[metric];
	const struct lbl_snapshot *snapshot = page->shown[i].snapshots[metric];
	size_t n;

	for (n = 0; n < snapshot->n_rows; n++) {
		const struct lbl_backend_snapshot *row = &snapshot->rows[n];

		lbl_hist_classic(buckets, row->n, snapshot->slots + row->first,
				 snapshot->counts + row->first, ret_counts);
		ret_counts += buckets->n_classic;
		*ret_counts++ = row->count;
		ret_sums[n] = lbl_seconds((lbl_u128)row->sum_hi << 64 | row->sum_lo);
	}
}

void lbl_page_give(struct lbl_page *page, const struct lbl_given *given)
{
	page->given = given;
}
