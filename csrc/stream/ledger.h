/* SPDX-License-Identifier: MIT */
/*
 * A ledger: where the events of a set of streams are, from one moment on.
 *
 *	produced = received + taken + dropped + in_ring
 *
 * Rings, counters maps and the ledger are of different ages, and others may have used the rings
 * before. So the first reading says by how much the producers' counters are ahead of the sum, and
 * later readings are held against that.
 */
#ifndef LBL_STREAM_LEDGER_H
#define LBL_STREAM_LEDGER_H

#include "stream/stream.h"

/* cdef: begin */
/* Sums over streams. */
struct lbl_stream_stats {
	uint64_t produced; /* events that producers tried to send, by their counters */
	uint64_t received; /* records read from the rings, since the streams were opened */
	uint64_t dropped; /* events that did not fit into a ring, by the producers' counters */
	uint64_t taken; /* records that left a ring without us: another program consumed them */
	uint64_t in_ring; /* records in the rings */
	uint64_t moved; /* times another program moved a consumer position; ours goes on */
	uint64_t replaced; /* times another ring was pinned in the place of one, and taken up */
	uint64_t corrupt; /* times a ring was invalid and skipped to its end */
	uint64_t fill_bytes;
	uint64_t fill_max_bytes; /* highest fills found by drains */
	uint64_t size_bytes;
	uint64_t
		stalled_since_ns; /* a record has stayed reserved since then; monotonic, 0 = none */
	uint64_t stalled_seconds; /* for how long */
	uint64_t attached; /* 1; 0: a ring is not, or not yet, the one that its pin says */
	uint64_t counted; /* 1; 0: `produced` and `dropped` are unknown */
};

struct lbl_ledger;

/*
 * Open a ledger of `n` streams. Records that wait in the rings are part of `produced`; events
 * dropped so far are not. Takes references to the streams. The functions that take a ledger are
 * thread-safe. -ENOMEM, or another -errno if a counters map cannot be read.
 */
int lbl_ledger_new(struct lbl_stream *const *streams, size_t n, struct lbl_ledger **ret);
/* Drops the references. NULL is legal. The caller holds no lock. */
void lbl_ledger_free(struct lbl_ledger *ledger);

/*
 * Read the sums of one moment. `produced`, `received` and `dropped` never go down. If the sum above
 * does not hold, events were lost without being counted. `counted` is 0 if a stream has no counters
 * map, or if a stream outside the set shares one. Where a ring or a counters map was replaced, or a
 * map was set to zero, since the last reading, the sum holds by definition. Returns 0 or -errno.
 */
int lbl_ledger_read(struct lbl_ledger *ledger, struct lbl_stream_stats *ret);
/* cdef: end */

/* Return the number of events that never came, by the drops and by what others took or broke. */
static inline uint64_t lbl_stream_lost(const struct lbl_stream_stats *stats)
{
	return stats->dropped + stats->taken + stats->corrupt;
}

/* Start anew. `ret`: the first reading. Returns 0 or -errno. */
int lbl_ledger_restart(struct lbl_ledger *ledger, struct lbl_stream_stats *ret);

/*
 * Read, and call `visit` for each stream under the lock that the drain holds, so that what it reads
 * agrees with `received`. Retries repeat the calls for all streams; use the last ones. If reading
 * fails, `ret` has the sums of the last reading that did not.
 */
int lbl_ledger_visit(struct lbl_ledger *ledger,
		     void (*visit)(void *ctx, size_t i, const struct lbl_drain_counts *counts),
		     void *ctx, struct lbl_stream_stats *ret);

#endif
