// SPDX-License-Identifier: MIT
#include "record/metric.h"

static const struct lbl_metric_info metrics[] = {
	[LBL_LIFETIME] = { "lifetime", false },
	[LBL_CONNECT] = { "connect", true },
	[LBL_FIRST_BYTE] = { "first_byte", true },
	[LBL_ACTIVE] = { "active", false },
};
_Static_assert(sizeof(metrics) / sizeof(metrics[0]) == LBL_METRICS, "every latency has a name");

const struct lbl_metric_info *lbl_metric_info(enum lbl_metric metric)
{
	return metric < LBL_METRICS ? &metrics[metric] : NULL;
}
