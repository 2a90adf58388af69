/* SPDX-License-Identifier: MIT */
/*
 * The interface between a stream and its consumers: a sink receives every record of the streams it
 * is attached to.
 */
#ifndef LBL_STREAM_SINK_H
#define LBL_STREAM_SINK_H

#include <pthread.h>
#include <stdint.h>

#include "base/fork.h"

enum { LBL_BURST_MAX = 64 };

struct lbl_sink;

/* The stream calls all of these with the sink's lock held. */
struct lbl_sink_ops {
	/* Receive 1 to LBL_BURST_MAX events of LBL_EVENT_BYTES each, LBL_EVENT_STRIDE apart. */
	void (*burst)(struct lbl_sink *sink, const void *first, uint32_t n);
	/* Receive one record of any length. */
	void (*record)(struct lbl_sink *sink, const void *data, uint32_t len);
	/* Called after each batch. May be NULL. */
	void (*end)(struct lbl_sink *sink);
	/* Called in a child of fork(). May be NULL. */
	void (*forked)(struct lbl_sink *sink);
};

/*
 * Embedded in each sink as its first member. A stream holds `lock` for one batch at a time; a
 * stream with several sinks takes their locks in the order of `serial`.
 */
struct lbl_sink {
	struct lbl_fork_entry fork;
	const struct lbl_sink_ops *ops;
	pthread_mutex_t lock;
	uint64_t serial;
};

/* Initialize a sink and register it for fork(). `ops` must outlive it. */
void lbl_sink_init(struct lbl_sink *sink, const struct lbl_sink_ops *ops);
/* The sink must be detached from all streams. */
void lbl_sink_destroy(struct lbl_sink *sink);

#endif
