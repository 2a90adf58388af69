/* SPDX-License-Identifier: MIT */
/* What several C tests set up alike. */
#ifndef LBL_COMMON_H
#define LBL_COMMON_H

#include "check.h"
#include "stream/drain.h"
#include "stream/queue.h"
#include "track/backend.h"
#include "track/snapshot.h"

#define SECOND 1000000000ULL

/* While set, calloc() and mprotect() fail: the tests are linked with --wrap for both. */
static __attribute__((unused)) bool no_memory;

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);

void *__wrap_calloc(size_t n, size_t size)
{
	return no_memory ? NULL : __real_calloc(n, size);
}

int __real_mprotect(void *p, size_t size, int protection);
int __wrap_mprotect(void *p, size_t size, int protection);

int __wrap_mprotect(void *p, size_t size, int protection)
{
	return no_memory ? -1 : __real_mprotect(p, size, protection);
}

static inline struct lbl_buckets *make_buckets(void)
{
	static const uint64_t bounds[] = { SECOND / 1000, SECOND, 3600 * SECOND };
	struct lbl_buckets *buckets;

	REQUIRE(!lbl_buckets_new(bounds, 3, &buckets));
	return buckets;
}

static inline struct lbl_tracker *make_tracker(uint32_t max_backends)
{
	struct lbl_buckets *buckets = make_buckets();
	struct lbl_tracker *tracker;

	REQUIRE(!lbl_tracker_new(buckets, max_backends, &tracker));
	lbl_buckets_free(buckets);
	return tracker;
}

static inline struct lbl_event closed_event(uint64_t lifetime, uint8_t backend)
{
	struct lbl_event event = { .type = LBL_CLOSED,
				   .reason = LBL_REASON_FIN,
				   .protocol = 6,
				   .flags = LBL_FLAG_IPV4,
				   .backend_id = backend,
				   .timestamp_ns = SECOND + lifetime,
				   .created_ns = SECOND,
				   .port = 80 };

	memset(event.addr + 10, 0xff, 2);
	event.addr[12] = 10;
	event.addr[15] = backend;
	return event;
}

static inline bool accounted(const struct lbl_tracker_stats *stats)
{
	return stats->closed ==
	       stats->recorded + stats->unmatched + stats->rejected + stats->ignored;
}

#endif
