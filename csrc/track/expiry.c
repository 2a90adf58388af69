// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "base/thread.h"
#include "track/accounting.h"
#include "track/expiry.h"
#include "track/open.h"
#include "track/removal.h"

#define MS 1000000ULL
#define SECOND (1000 * MS)

/* Time between looks: a backend goes at most half of `after_ns` late. */
static uint64_t interval(const struct lbl_expiry *expiry)
{
	uint64_t quarter = expiry->after_ns / 4;

	return quarter < 10 * MS ? 10 * MS : quarter < 60 * SECOND ? quarter : 60 * SECOND;
}

/* ---- looking ---- */

struct look {
	struct lbl_tracker *tracker;
	uint64_t now;
	int64_t open_error;
};

/* Note a part's activity. Returns since when it is what it is. */
static uint64_t idle_since(const struct look *look, const struct lbl_part *part)
{
	struct lbl_cold *cold = &part->shard->table.cold[part->index];
	uint64_t activity = lbl_shard_activity(part->shard, part->index, look->tracker->scratch);

	if (!cold->changed_ns || activity != cold->activity) {
		cold->activity = activity;
		cold->changed_ns = look->now;
	}
	return cold->changed_ns;
}

static bool is_expired(void *ctx, const struct lbl_part *parts, size_t n)
{
	const struct look *look = ctx;
	uint64_t since = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		uint64_t of_part = idle_since(look, &parts[i]);

		since = of_part > since ? of_part : since;
	}
	return look->now - since >= look->tracker->expiry.after_ns &&
	       lbl_open_of(parts, n) <= look->open_error;
}

static void look_at_all(struct lbl_tracker *tracker)
{
	struct look look = { .tracker = tracker, .now = lbl_now_ns() };
	struct lbl_part *parts;
	size_t n = lbl_parts_gather(tracker, lbl_tracker_shards(tracker), &parts);

	WRITE_ONCE(&tracker->expiry.looked_ns, look.now);
	look.open_error = (int64_t)lbl_open_error(tracker, lbl_accounting_lost(tracker));
	lbl_remove_parts(tracker, parts, n, is_expired, &look);
	free(parts);
}

bool lbl_expiry_is_due(const struct lbl_tracker *tracker)
{
	const struct lbl_expiry *expiry = &tracker->expiry;

	return expiry->after_ns && lbl_now_ns() - READ_ONCE(&expiry->looked_ns) >= interval(expiry);
}

void lbl_expiry_catch_up(struct lbl_tracker *tracker)
{
	if (lbl_expiry_is_due(tracker))
		look_at_all(tracker);
}

/* ---- the thread ---- */

static void *expiry_thread(void *arg)
{
	struct lbl_tracker *tracker = arg;
	struct lbl_expiry *expiry = &tracker->expiry;

	pthread_setname_np(pthread_self(), "lbl-expiry");
	pthread_mutex_lock(&tracker->lock);
	while (!expiry->stopping) {
		lbl_cond_wait(&expiry->wake, &tracker->lock, expiry->looked_ns + interval(expiry));
		if (!expiry->stopping)
			lbl_expiry_catch_up(tracker);
	}
	pthread_mutex_unlock(&tracker->lock);
	return NULL;
}

int lbl_tracker_expire(struct lbl_tracker *tracker, uint64_t after_ns)
{
	struct lbl_expiry *expiry = &tracker->expiry;
	int err;

	if (!after_ns)
		return -EINVAL;
	pthread_mutex_lock(&tracker->lock);
	expiry->after_ns = after_ns;
	expiry->looked_ns = lbl_now_ns();
	lbl_cond_init(&expiry->wake);
	err = lbl_thread_start(&expiry->thread, expiry_thread, tracker);
	expiry->running = !err;
	pthread_mutex_unlock(&tracker->lock);
	return err;
}

void lbl_expiry_stop(struct lbl_tracker *tracker)
{
	struct lbl_expiry *expiry = &tracker->expiry;

	if (!expiry->running)
		return;
	pthread_mutex_lock(&tracker->lock);
	expiry->stopping = true;
	pthread_cond_signal(&expiry->wake);
	pthread_mutex_unlock(&tracker->lock);
	pthread_join(expiry->thread, NULL);
	pthread_cond_destroy(&expiry->wake);
	expiry->running = false;
}

/* The child has no such thread; what waits for its condition is not there either. */
void lbl_expiry_forked(struct lbl_tracker *tracker)
{
	tracker->expiry.running = false;
}
