/* SPDX-License-Identifier: MIT */
/* Messages io.prometheus.client.MetricFamily, each after its length. */
#ifndef LBL_RENDER_PROTOBUF_H
#define LBL_RENDER_PROTOBUF_H

#include "render/joint.h"
#include "render/native.h"

struct lbl_protobuf_writer {
	struct lbl_writer writer; /* first */
	int schema; /* of native histograms */
	size_t family; /* where the message begins */
	struct lbl_text name; /* of its samples */
	struct lbl_joint joint; /* a histogram or summary of other collectors */
	struct lbl_buffer parts; /* what it has so far */
	struct lbl_native native;
};

void lbl_protobuf_init(struct lbl_protobuf_writer *protobuf, struct lbl_buffer *out, int schema);

#endif
