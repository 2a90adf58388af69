// SPDX-License-Identifier: MIT
#include "render/families.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define OF_BACKEND(value, field)                                                                   \
	{                                                                                          \
		value, offsetof(struct lbl_backend_snapshot, field), false                         \
	}
#define OF_TRACKER(value, field)                                                                   \
	{                                                                                          \
		value, offsetof(struct lbl_tracker_stats, field), false                            \
	}
#define OF_PRODUCERS(value, field)                                                                 \
	{                                                                                          \
		value, offsetof(struct lbl_tracker_stats, field), true                             \
	}
#define SAMPLES(array) .samples = (array), .n_samples = COUNT_OF(array)

static const struct lbl_sample closed[] = {
	OF_BACKEND("unknown", closed[LBL_REASON_UNKNOWN]),
	OF_BACKEND("fin", closed[LBL_REASON_FIN]),
	OF_BACKEND("rst", closed[LBL_REASON_RST]),
	OF_BACKEND("timeout", closed[LBL_REASON_TIMEOUT]),
	OF_BACKEND("evicted", closed[LBL_REASON_EVICTED]),
	OF_BACKEND("reused", closed[LBL_REASON_REUSED]),
	OF_BACKEND("connect_failed", closed[LBL_REASON_CONNECT_FAILED]),
};
_Static_assert(COUNT_OF(closed) == LBL_REASONS, "every reason is exported");

static const struct lbl_sample open[] = { OF_BACKEND(NULL, open) };

static const struct lbl_sample events[] = {
	OF_TRACKER("opened", outcomes.opened),
	OF_TRACKER("closed", outcomes.closed),
	OF_TRACKER("periodic", outcomes.periodic),
	OF_TRACKER("malformed", outcomes.malformed),
};

static const struct lbl_sample outcomes[] = {
	OF_TRACKER("recorded", outcomes.recorded),
	OF_TRACKER("unmatched", outcomes.unmatched),
	OF_TRACKER("rejected", outcomes.rejected),
	OF_TRACKER("ignored", outcomes.ignored),
};

static const struct lbl_sample lost[] = {
	OF_PRODUCERS("dropped", events.dropped),
	OF_TRACKER("taken", events.taken),
	OF_TRACKER("unmatched", outcomes.unmatched),
	OF_TRACKER("rejected", outcomes.rejected),
	OF_TRACKER("malformed", outcomes.malformed),
	OF_TRACKER("births_evicted", outcomes.births_evicted),
	OF_TRACKER("not_counted", outcomes.not_counted),
	OF_TRACKER("corrupt", events.corrupt),
};

static const struct lbl_sample open_error[] = { OF_PRODUCERS(NULL, open_error) };
static const struct lbl_sample running[] = { OF_TRACKER(NULL, running) };
static const struct lbl_sample produced[] = { OF_PRODUCERS(NULL, events.produced) };
static const struct lbl_sample received[] = { OF_TRACKER(NULL, events.received) };
static const struct lbl_sample counted[] = { OF_TRACKER(NULL, events.counted) };
static const struct lbl_sample attached[] = { OF_TRACKER(NULL, events.attached) };
static const struct lbl_sample replaced[] = { OF_TRACKER(NULL, events.replaced) };
static const struct lbl_sample moved[] = { OF_TRACKER(NULL, events.moved) };
static const struct lbl_sample stalled[] = { OF_TRACKER(NULL, events.stalled_seconds) };
static const struct lbl_sample in_ring[] = { OF_TRACKER(NULL, events.in_ring) };
static const struct lbl_sample fill_bytes[] = { OF_TRACKER(NULL, events.fill_bytes) };
static const struct lbl_sample fill_max_bytes[] = { OF_TRACKER(NULL, events.fill_max_bytes) };
static const struct lbl_sample size_bytes[] = { OF_TRACKER(NULL, events.size_bytes) };

static const struct lbl_family families[] = {
	{ "lb_backend_latency_seconds", "Backend connection latency in seconds", LBL_HISTOGRAM,
	  LBL_PER_BACKEND, .metric = LBL_LIFETIME, .in_copy = true },
	{ "lb_backend_connect_seconds", "Time from the first SYN to the backend's SYN-ACK",
	  LBL_HISTOGRAM, LBL_PER_BACKEND, .metric = LBL_CONNECT, .in_copy = true },
	{ "lb_backend_first_byte_seconds", "Time from the first SYN to the backend's first byte",
	  LBL_HISTOGRAM, LBL_PER_BACKEND, .metric = LBL_FIRST_BYTE, .in_copy = true },
	{ "lb_backend_active_seconds", "Time from the first SYN to the first FIN or RST",
	  LBL_HISTOGRAM, LBL_PER_BACKEND, .metric = LBL_ACTIVE, .in_copy = true },
	{ "lblatency_connections_closed",
	  "Closed connections to a backend, by reason, without health probes", LBL_COUNTER,
	  LBL_PER_BACKEND, .label = "reason", .is_sparse = true, .in_copy = true, SAMPLES(closed) },
	{ "lblatency_connections_open", "Open connections to a backend whose opening was seen",
	  LBL_GAUGE, LBL_PER_BACKEND, SAMPLES(open) },
	{ "lb_backend_open_age_seconds",
	  "Age of a backend's open connections whose beginning is known, as the last scan of a "
	  "conntrack map found them",
	  LBL_GAUGE_HISTOGRAM, LBL_PER_OPEN, .label = NULL },
	{ "lblatency_scan_interval_seconds",
	  "Time between two scans of a conntrack map, the longest of all maps: latencies that "
	  "scans "
	  "find are off by at most so much",
	  LBL_GAUGE, LBL_PER_SCAN, .label = NULL },
	{ "lblatency_backends_folded",
	  "Backends beyond the limit of series, which count as the backend overflow here",
	  LBL_GAUGE, LBL_PER_PAGE, .in_copy = true },
	{ "lb_backend", "Name of the server at a backend's address", LBL_INFO, LBL_PER_NAME,
	  .in_copy = true },
	{ "lblatency_names_age_seconds",
	  "How long ago the names of servers were last read from a place, +Inf if never", LBL_GAUGE,
	  LBL_PER_READER, .in_copy = true },
	{ "lblatency_connections_open_error",
	  "By how many open connections may be off: events were lost, or backends removed with "
	  "open ones",
	  LBL_GAUGE, LBL_PER_TRACKER, SAMPLES(open_error) },
	{ "lblatency_running", "1 while events are recorded, 0 also in a copy made by fork()",
	  LBL_GAUGE, LBL_PER_TRACKER, .in_copy = true, SAMPLES(running) },
	{ "lblatency_events", "Events read from the ring buffers, by type", LBL_COUNTER,
	  LBL_PER_TRACKER, .label = "type", SAMPLES(events) },
	{ "lblatency_closed_events", "Closed events, by outcome", LBL_COUNTER, LBL_PER_TRACKER,
	  .label = "outcome", SAMPLES(outcomes) },
	{ "lblatency_events_lost", "Events whose latency was lost, by reason", LBL_COUNTER,
	  LBL_PER_TRACKER, .label = "reason", SAMPLES(lost) },
	{ "lblatency_failed_connects", "Connections to a backend that never came about, by cause",
	  LBL_COUNTER, LBL_PER_SOURCE, .label = "cause" },
	{ "lblatency_events_produced", "Events that balancers tried to send, by their own counters",
	  LBL_COUNTER, LBL_PER_TRACKER, SAMPLES(produced) },
	{ "lblatency_counters_attached",
	  "1 if the balancers' counters of produced and dropped events are read, else 0", LBL_GAUGE,
	  LBL_PER_TRACKER, SAMPLES(counted) },
	{ "lblatency_events_received", "Records read from the ring buffers", LBL_COUNTER,
	  LBL_PER_TRACKER, SAMPLES(received) },
	{ "lblatency_stream_attached",
	  "1 if all rings are the ones that their pins say, 0 if one is gone or not taken up yet",
	  LBL_GAUGE, LBL_PER_TRACKER, SAMPLES(attached) },
	{ "lblatency_ring_replaced", "Times another ring was pinned in a ring's place and taken up",
	  LBL_COUNTER, LBL_PER_TRACKER, SAMPLES(replaced) },
	{ "lblatency_ring_moved", "Times another program moved a ring's consumer position",
	  LBL_COUNTER, LBL_PER_TRACKER, SAMPLES(moved) },
	{ "lblatency_ring_stalled_seconds",
	  "For how long a record that stays reserved has kept back all later ones", LBL_GAUGE,
	  LBL_PER_TRACKER, SAMPLES(stalled) },
	{ "lblatency_ring_events", "Events in the ring buffers", LBL_GAUGE, LBL_PER_TRACKER,
	  SAMPLES(in_ring) },
	{ "lblatency_ring_fill_bytes", "Bytes in the ring buffers", LBL_GAUGE, LBL_PER_TRACKER,
	  SAMPLES(fill_bytes) },
	{ "lblatency_ring_fill_max_bytes",
	  "Highest number of bytes in the ring buffers found by a drain", LBL_GAUGE,
	  LBL_PER_TRACKER, SAMPLES(fill_max_bytes) },
	{ "lblatency_ring_size_bytes", "Size of the ring buffers", LBL_GAUGE, LBL_PER_TRACKER,
	  SAMPLES(size_bytes) },
};

const struct lbl_family *lbl_families(size_t *ret_n)
{
	*ret_n = COUNT_OF(families);
	return families;
}

uint64_t lbl_sample_value(const struct lbl_sample *sample, const void *of)
{
	uint64_t value;

	memcpy(&value, (const char *)of + sample->offset, sizeof(value));
	return value;
}

void lbl_sample_values(const struct lbl_sample *sample, const struct lbl_snapshot *snapshot,
		       uint64_t *ret)
{
	size_t i;

	for (i = 0; i < snapshot->n_rows; i++)
		ret[i] = lbl_sample_value(sample, &snapshot->rows[i]);
}

const char *lbl_family_unit(const struct lbl_family *family)
{
	static const char *const units[] = { "seconds", "bytes" };
	size_t i;

	for (i = 0; i < COUNT_OF(units); i++) {
		size_t from = strlen(family->name) - strlen(units[i]);

		if (!strcmp(family->name + from, units[i]))
			return units[i];
	}
	return "";
}

size_t lbl_scope_labels(enum lbl_family_scope scope, const char *const **ret)
{
	static const char *const backend[] = { "proxy_name", "target_ip", "target_port" };
	static const char *const name[] = { "proxy_name", "target_ip", "target_port", "backend",
					    "server" };
	static const char *const reader[] = { "from", "place" };

	switch (scope) {
	case LBL_PER_BACKEND:
	case LBL_PER_OPEN:
		*ret = backend;
		return COUNT_OF(backend);
	case LBL_PER_NAME:
		*ret = name;
		return COUNT_OF(name);
	case LBL_PER_READER:
		*ret = reader;
		return COUNT_OF(reader);
	case LBL_PER_TRACKER:
	case LBL_PER_SOURCE:
	case LBL_PER_SCAN:
	case LBL_PER_PAGE:
		break;
	}
	*ret = NULL;
	return 0;
}
