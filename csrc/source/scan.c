// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "base/util.h"
#include "source/scan.h"
#include "stream/stream.h"

/*
 * `events` belongs to the thread that scans; there is one at a time. What follows it is written
 * under the conntrack's lock.
 */
struct lbl_scan {
	struct lbl_conntrack *conntrack;
	struct lbl_conntrack_use use;
	struct lbl_stream *stream;
	struct lbl_scan_rule *rules;
	size_t n_rules;
	struct lbl_event events[LBL_SEEN_SWEPT];
	size_t n_events;
	bool ending; /* no connection is known to have ended */
	uint64_t open, older, timed_out, prompt;
};

/* ---- rules ---- */

static bool has_prefix(const uint8_t *addr, const uint8_t *prefix, uint8_t bits)
{
	uint8_t rest = bits % 8;

	if (memcmp(addr, prefix, bits / 8))
		return false;
	return !rest || !((addr[bits / 8] ^ prefix[bits / 8]) >> (8 - rest));
}

static const struct lbl_scan_rule *rule_of(const struct lbl_scan *scan,
					   const struct lbl_connection *of)
{
	const struct lbl_scan_rule *rule = scan->rules, *end = rule + scan->n_rules;

	for (; rule < end; rule++) {
		if (of->backend_port >= rule->first_port && of->backend_port <= rule->last_port &&
		    has_prefix(of->backend_addr, rule->addr, rule->prefix))
			return rule;
	}
	return NULL;
}

static bool wants(void *ctx, const struct lbl_connection *found)
{
	const struct lbl_scan *scan = ctx;

	return !scan->n_rules || rule_of(scan, found);
}

static uint16_t proxy_of(const struct lbl_scan *scan, const struct lbl_connection *of)
{
	const struct lbl_scan_rule *rule = rule_of(scan, of);

	return rule ? rule->proxy_id : 0;
}

/* ---- times ---- */

static uint64_t between(uint64_t a, uint64_t b)
{
	return a < b ? a + (b - a) / 2 : b;
}

/*
 * When the connection was created: the same for its opened and its closed event, so that both count
 * as open or neither. Unless times of this map have proved to stay, the earliest one that was seen is
 * that of some packet since the last scan that did not find the connection: the middle is off by half
 * of that at most, either way. 0 if it is older than the scans, which nobody saw begin.
 */
static uint64_t born_ns(const struct lbl_sighting *sighting)
{
	if (!sighting->absent_ns)
		return 0;
	if (!sighting->birth_ns || sighting->is_exact)
		return sighting->birth_ns;
	return between(sighting->absent_ns, sighting->birth_ns);
}

static bool is_idle(const struct lbl_sighting *sighting)
{
	uint64_t idle_ns = LBL_SCAN_IDLE_S * 1000000000ULL;

	return sighting->last->last_seen_ns && !sighting->is_replaced &&
	       sighting->last->last_seen_ns + idle_ns < sighting->look_ns;
}

/*
 * A balancer that deletes idle entries only tells an end by the last packet. One that deletes an
 * entry as its connection ends does so between two scans, and the middle is off by half at most.
 */
static uint64_t ended_ns(const struct lbl_sighting *sighting, bool is_timeout)
{
	uint64_t last_ns = sighting->last->last_seen_ns;

	if (is_timeout)
		return last_ns;
	return between(last_ns > sighting->look_ns ? last_ns : sighting->look_ns,
		       sighting->until_ns);
}

/* ---- events, told under the lock and sent without it ---- */

static void add_event(struct lbl_scan *scan, const struct lbl_connection *of,
		      struct lbl_event event)
{
	if (scan->n_events == LBL_SEEN_SWEPT)
		return; /* of a child of fork(): the parent sends what it had */
	memcpy(event.addr, of->backend_addr, sizeof(event.addr));
	event.port = of->backend_port;
	event.protocol = of->protocol;
	event.proxy_id = proxy_of(scan, of);
	scan->events[scan->n_events++] = event;
}

static void add_opened(struct lbl_scan *scan, const struct lbl_sighting *sighting)
{
	lbl_owner_add(&scan->open, 1);
	add_event(scan, sighting->last,
		  (struct lbl_event){ .type = LBL_OPENED,
				      .timestamp_ns = sighting->look_ns,
				      .created_ns = born_ns(sighting) });
}

static void add_closed(struct lbl_scan *scan, const struct lbl_sighting *sighting)
{
	bool was_idle = is_idle(sighting), is_timeout;
	uint8_t reason = LBL_REASON_UNKNOWN;
	uint64_t created_ns = born_ns(sighting);

	lbl_owner_add(&scan->open, -1ULL);
	lbl_owner_add(&scan->timed_out, was_idle);
	lbl_owner_add(&scan->prompt, !was_idle && !sighting->is_replaced);
	is_timeout = was_idle && scan->timed_out > scan->prompt;
	if (sighting->is_replaced)
		reason = LBL_REASON_REUSED;
	else if (is_timeout)
		reason = LBL_REASON_TIMEOUT;
	lbl_owner_add(&scan->older, !created_ns);
	add_event(scan, sighting->last,
		  (struct lbl_event){ .type = LBL_CLOSED,
				      .reason = reason,
				      .timestamp_ns = ended_ns(sighting, is_timeout),
				      .created_ns = created_ns });
}

/* Nobody will see it end. */
static void add_given_up(struct lbl_scan *scan, const struct lbl_sighting *sighting)
{
	lbl_owner_add(&scan->open, -1ULL);
	add_event(scan, sighting->last,
		  (struct lbl_event){ .type = LBL_CLOSED,
				      .reason = LBL_REASON_EVICTED,
				      .timestamp_ns = sighting->until_ns });
}

static void note(void *ctx, const struct lbl_sighting *sighting)
{
	struct lbl_scan *scan = ctx;

	if (!sighting->until_ns)
		add_opened(scan, sighting);
	else if (scan->ending)
		add_given_up(scan, sighting);
	else
		add_closed(scan, sighting);
}

/* While somebody takes the events, none is dropped: we drain the ring before it is full. */
static void send_events(void *ctx)
{
	struct lbl_scan *scan = ctx;
	struct lbl_stream *stream = scan->stream;
	size_t i;

	if (!scan->n_events)
		return;
	if (lbl_ring_fill(&stream->ring) > stream->ring.mask / 2)
		lbl_stream_drain(stream);
	for (i = 0; i < scan->n_events; i++)
		lbl_stream_produce(stream, &scan->events[i], sizeof(scan->events[i]));
	scan->n_events = 0;
}

/* ---- the source ---- */

static void free_scan(struct lbl_scan *scan)
{
	lbl_stream_free(scan->stream);
	lbl_conntrack_free(scan->conntrack);
	free(scan->rules);
	free(scan);
}

static int make_scan(struct lbl_scan *scan, int fd, const struct lbl_layout *layout,
		     uint64_t interval_ns)
{
	struct lbl_conntrack_watch watch = { .of_seen = { note, scan },
					     .wants = wants,
					     .unlocked = send_events };

	return lbl_conntrack_open_watched(fd, layout, &watch, interval_ns, &scan->conntrack);
}

static int start(struct lbl_scan *scan)
{
	int err = lbl_conntrack_begin(scan->conntrack, &scan->use);
	int64_t found;

	if (err)
		return err;
	found = lbl_conntrack_scan(scan->conntrack);
	if (found >= 0)
		return 0;
	lbl_conntrack_end(&scan->use);
	return (int)found;
}

int lbl_scan_open(int fd, const struct lbl_layout *layout, struct lbl_stream *stream,
		  const struct lbl_scan_rule *rules, size_t n_rules, uint64_t interval_ns,
		  struct lbl_scan **ret)
{
	struct lbl_scan *scan = calloc(1, sizeof(*scan));
	int err = 0;

	if (!scan)
		return -ENOMEM;
	lbl_ref(&stream->refs);
	scan->stream = stream;
	scan->n_rules = n_rules;
	if (n_rules) {
		scan->rules = calloc(n_rules, sizeof(*rules));
		if (scan->rules)
			memcpy(scan->rules, rules, n_rules * sizeof(*rules));
		else
			err = -ENOMEM;
	}
	err = err ? err : make_scan(scan, fd, layout, interval_ns);
	err = err ? err : start(scan);
	if (err)
		free_scan(scan);
	else
		*ret = scan;
	return err;
}

void lbl_scan_close(struct lbl_scan *scan)
{
	if (!scan)
		return;
	scan->ending = true;
	lbl_conntrack_drop(scan->conntrack);
	lbl_conntrack_end(&scan->use);
	free_scan(scan);
}

int64_t lbl_scan_now(struct lbl_scan *scan)
{
	return lbl_conntrack_scan(scan->conntrack);
}

void lbl_scan_stats(struct lbl_scan *scan, struct lbl_scan_stats *ret)
{
	lbl_conntrack_stats(scan->conntrack, &ret->of_map);
	ret->open = READ_ONCE(&scan->open);
	ret->older = READ_ONCE(&scan->older);
	ret->timed_out = READ_ONCE(&scan->timed_out);
	ret->prompt = READ_ONCE(&scan->prompt);
}

/* ---- ages ---- */

struct count {
	const struct lbl_scan *scan;
	struct lbl_age_table table;
	uint64_t now_ns;
};

/* Of a connection that is older than the scans, where times move, it is at least so old. */
static void count_open(void *ctx, const struct lbl_sighting *sighting)
{
	struct lbl_age_row backend = { .port = sighting->last->backend_port };
	uint64_t born = born_ns(sighting), age_ns;
	struct count *count = ctx;

	if (!born)
		born = sighting->birth_ns;
	age_ns = count->now_ns > born ? count->now_ns - born : 0;
	memcpy(backend.addr, sighting->last->backend_addr, sizeof(backend.addr));
	backend.proxy_id = proxy_of(count->scan, sighting->last);
	lbl_age_table_add(&count->table, &backend, born ? &age_ns : NULL);
}

int lbl_scan_ages(struct lbl_scan *scan, const uint64_t *bounds, size_t n_bounds,
		  struct lbl_ages *ret)
{
	struct count count = { .scan = scan, .now_ns = lbl_now_ns() };
	struct lbl_seen_watch visitor = { count_open, &count };
	int err = lbl_age_table_init(&count.table, bounds, n_bounds);

	if (err)
		return err;
	lbl_conntrack_visit(scan->conntrack, &visitor);
	lbl_age_table_end(&count.table, ret);
	return 0;
}
