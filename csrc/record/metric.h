/* SPDX-License-Identifier: MIT */
/*
 * The latencies that closed events tell, a bank each. A further one is an entry in the enum, a case
 * in lbl_told(), an entry in metric.c and a family in render/families.c.
 */
#ifndef LBL_RECORD_METRIC_H
#define LBL_RECORD_METRIC_H

#include "lbl_abi.h"
#include "base/util.h"

/* cdef: begin */
enum lbl_metric {
	LBL_LIFETIME, /* creation to the end */
	LBL_CONNECT, /* creation to the backend's SYN-ACK */
	LBL_FIRST_BYTE, /* creation to the backend's first byte */
	LBL_ACTIVE, /* creation to the first FIN or RST */
	LBL_METRICS,
};

struct lbl_metric_info {
	const char *name; /* as people write it: "first_byte" */
	bool is_short; /* from 100 us to a minute, as a rule */
};

/* NULL past the last one. */
const struct lbl_metric_info *lbl_metric_info(enum lbl_metric metric);
/* cdef: end */

#define LBL_NOT_TOLD UINT64_MAX

/* LBL_NOT_TOLD, if the event's producer has not measured the time or it never came. */
static inline uint64_t lbl_span_ns(uint32_t us)
{
	return us - 1 < LBL_SPAN_NONE - 1 ? us * 1000ULL : LBL_NOT_TOLD;
}

/*
 * What a closed event tells of a latency, in ns, or LBL_NOT_TOLD. `lifetime`: its own, or
 * LBL_NOT_TOLD. Each field is read once, for what is in a ring may change.
 */
static inline uint64_t lbl_told(enum lbl_metric metric, const struct lbl_event *event,
				uint64_t lifetime)
{
	uint64_t ns;

	switch (metric) {
	case LBL_CONNECT:
		return lbl_span_ns(READ_ONCE(&event->connect_us));
	case LBL_FIRST_BYTE:
		return lbl_span_ns(READ_ONCE(&event->first_byte_us));
	case LBL_ACTIVE:
		ns = lbl_span_ns(READ_ONCE(&event->closing_us));
		return lifetime != LBL_NOT_TOLD && ns <= lifetime ? lifetime - ns : LBL_NOT_TOLD;
	default:
		return lifetime;
	}
}

#endif
