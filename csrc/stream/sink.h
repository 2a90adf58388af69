/* SPDX-License-Identifier: MIT */
/* What a stream feeds. A sink takes every record; it knows no stream, and a stream only this. */
#ifndef LBL_STREAM_SINK_H
#define LBL_STREAM_SINK_H

#include <pthread.h>
#include <stdint.h>

#include "base/fork.h"

enum { LBL_BURST_MAX = 64 };

struct lbl_sink;

/* All are called with the sink's lock held. */
struct lbl_sink_ops {
	/* 1 to LBL_BURST_MAX records of LBL_EVENT_BYTES each, LBL_EVENT_STRIDE apart. */
	void (*burst)(struct lbl_sink *sink, const void *first, uint32_t n);
	/* One record of any length. */
	void (*record)(struct lbl_sink *sink, const void *data, uint32_t len);
	/* A batch of the above has ended. May be NULL. */
	void (*end)(struct lbl_sink *sink);
	/* This is the child of a fork. May be NULL. */
	void (*forked)(struct lbl_sink *sink);
};

/*
 * The first member of whatever is a sink. A stream holds `lock` for a batch at a time; one that
 * feeds several sinks locks them in the order of their serials.
 */
struct lbl_sink {
	struct lbl_fork_entry fork;
	const struct lbl_sink_ops *ops;
	pthread_mutex_t lock;
	uint64_t serial;
};

void lbl_sink_init(struct lbl_sink *sink, const struct lbl_sink_ops *ops);
/* The sink must not be attached to a stream any more. */
void lbl_sink_destroy(struct lbl_sink *sink);

#endif
