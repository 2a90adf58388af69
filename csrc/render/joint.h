/* SPDX-License-Identifier: MIT */
/* Samples of other collectors that make a histogram or a summary: they differ in one label only. */
#ifndef LBL_RENDER_JOINT_H
#define LBL_RENDER_JOINT_H

#include "render/writer.h"

struct lbl_joint {
	struct lbl_buffer labels; /* of the samples so far, encoded, without that label */
	struct lbl_buffer next; /* of the current sample */
};

void lbl_joint_release(struct lbl_joint *joint);

/* Return the label that distinguishes the samples of a family's metric; NULL if there is none. */
const char *lbl_joining_label(enum lbl_family_type type);

static inline bool lbl_is_label(const struct lbl_label *label, const char *name)
{
	return name && lbl_same_text(label->name, lbl_text_of(name));
}

/* Return whether the labels of the current sample are those of the samples so far. */
bool lbl_joint_continues(const struct lbl_joint *joint);
/* Begin a metric with the labels of the current sample. */
void lbl_joint_begin(struct lbl_joint *joint);

#endif
