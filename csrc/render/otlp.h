/* SPDX-License-Identifier: MIT */
/* A message opentelemetry.proto.collector.metrics.v1.ExportMetricsServiceRequest, cumulative. */
#ifndef LBL_RENDER_OTLP_H
#define LBL_RENDER_OTLP_H

#include "render/joint.h"
#include "render/native.h"
#include "render/given.h"

/* cdef: begin */
enum { LBL_RESOURCE_MAX = 64 };
/* cdef: end */

struct lbl_otlp_writer {
	struct lbl_writer writer; /* first */
	int schema; /* of exponential histograms */
	const struct lbl_given *given; /* the resource; NULL for none */
	uint64_t time_ns; /* of all points, by CLOCK_REALTIME */
	bool in_request;
	size_t resource, scope; /* where its messages begin */
	struct lbl_text name; /* of the metric that is open */
	uint32_t field; /* of its data */
	size_t metric, data; /* where it begins */
	struct lbl_joint
		joint; /* a histogram or summary of other collectors, and what it has so far: */
	struct lbl_buffer bounds, counts, quantiles;
	double cumulative, count, sum;
	bool is_joining;
	struct lbl_native native;
};

/*
 * The resource is a family whose only sample has its attributes as labels, at most LBL_RESOURCE_MAX;
 * NULL for none. It outlives the writer.
 */
void lbl_otlp_init(struct lbl_otlp_writer *otlp, struct lbl_buffer *out, int schema,
		   const struct lbl_given *resource, uint64_t time_ns);

#endif
