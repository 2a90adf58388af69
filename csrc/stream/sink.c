// SPDX-License-Identifier: MIT
#include "stream/sink.h"

static void handle_fork(struct lbl_fork_entry *entry, enum lbl_fork_phase phase)
{
	struct lbl_sink *sink = (struct lbl_sink *)entry;

	if (phase == LBL_FORK_PREPARE) {
		pthread_mutex_lock(&sink->lock);
		return;
	}
	if (phase == LBL_FORK_CHILD && sink->ops->forked)
		sink->ops->forked(sink);
	pthread_mutex_unlock(&sink->lock);
}

/* fork() takes sinks' locks in the order of registration, so `serial` must have the same order. */
void lbl_sink_init(struct lbl_sink *sink, const struct lbl_sink_ops *ops)
{
	pthread_mutex_init(&sink->lock, NULL);
	sink->ops = ops;
	sink->fork.rank = LBL_FORK_SINK;
	sink->fork.handle = handle_fork;
	sink->serial = lbl_fork_register(&sink->fork);
}

void lbl_sink_destroy(struct lbl_sink *sink)
{
	lbl_fork_unregister(&sink->fork);
	pthread_mutex_destroy(&sink->lock);
}
