// SPDX-License-Identifier: MIT
#include "render/joint.h"

void lbl_joint_release(struct lbl_joint *joint)
{
	lbl_buffer_release(&joint->labels);
	lbl_buffer_release(&joint->next);
}

const char *lbl_joining_label(enum lbl_family_type type)
{
	switch (type) {
	case LBL_HISTOGRAM:
	case LBL_GAUGE_HISTOGRAM:
		return "le";
	case LBL_SUMMARY:
		return "quantile";
	default:
		return NULL;
	}
}

bool lbl_joint_continues(const struct lbl_joint *joint)
{
	return lbl_same_text((struct lbl_text){ joint->labels.at, joint->labels.n },
			     (struct lbl_text){ joint->next.at, joint->next.n });
}

void lbl_joint_begin(struct lbl_joint *joint)
{
	joint->labels.n = 0;
	lbl_put(&joint->labels, joint->next.at, joint->next.n);
}
