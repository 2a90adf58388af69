/* SPDX-License-Identifier: MIT */
/*
 * The latencies in closed events; each has a bank. To add one, extend the enum, lbl_latency_ns(),
 * metric.c and render/families.c.
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
	const char *name; /* in the Python API and on the command line */
	bool is_short; /* typically 100 us to a minute */
};

/* Return NULL if `metric` is out of range. */
const struct lbl_metric_info *lbl_metric_info(enum lbl_metric metric);
/* cdef: end */

#define LBL_NOT_MEASURED UINT64_MAX

/* Convert to ns; LBL_NOT_MEASURED if the time was not measured or its end never came. */
static inline uint64_t lbl_span_ns(uint32_t us)
{
	return us - 1 < LBL_SPAN_NONE - 1 ? us * 1000ULL : LBL_NOT_MEASURED;
}

/*
 * Return a latency of a closed event in ns, or LBL_NOT_MEASURED. `lifetime` is the event's
 * lifetime, or LBL_NOT_MEASURED. Reads each field once, since records in a ring may change.
 */
static inline uint64_t lbl_latency_ns(enum lbl_metric metric, const struct lbl_event *event,
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
		return lifetime != LBL_NOT_MEASURED && ns <= lifetime ? lifetime - ns
								      : LBL_NOT_MEASURED;
	default:
		return lifetime;
	}
}

#endif
