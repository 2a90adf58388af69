// SPDX-License-Identifier: MIT
/*
 * The fast path: runs of our own closed events, taken through in stages. Each stage does a little
 * for every event and asks for the memory that the next one needs, so that the waits of a hundred
 * events overlap instead of adding up. What is not plain goes the long way, lbl_shard_record().
 */
#include <endian.h>

#include "lbl_count.h"

/* An event on its way. */
struct step {
	const struct lbl_event *event;
	struct lbl_hot *hot;
	uint8_t *counter;
	uint64_t ns;
	uint64_t hash;
	uint32_t slot;
	uint32_t reason;
};

/*
 * The event's reason if it is closed, no probe's and was a connection, else something larger. All
 * in one compare: type, reason and flags are the first word's bytes, and what is not the reason is
 * rotated to where only 0 is small.
 */
static inline uint32_t plain_reason(const struct lbl_event *event)
{
	const uint32_t mask = 0xffffU | (uint32_t)LBL_FLAG_PROBE << 24;
	uint32_t word;

	memcpy(&word, event, sizeof(word));
	word = (le32toh(word) ^ LBL_CLOSED) & mask;
	return word >> 8 | word << 24;
}

/* Pick the plain events, by far the most frequent ones, and look up their slots. */
static uint32_t begin(struct lbl_shard *shard, const char *first, uint32_t n, struct step *steps)
{
	const struct lbl_layout *layout = shard->layout;
	struct step *step = steps;
	const char *at;

	for (at = first; at < first + n * 64UL; at += 64) {
		const struct lbl_event *event = (const void *)at;
		uint64_t ns = event->timestamp_ns - event->created_ns;
		uint32_t reason = plain_reason(event);

		if (unlikely(reason >= LBL_HOT_REASONS || !event->created_ns || ns > LBL_TOP_NS)) {
			lbl_shard_record(shard, event, sizeof(*event));
			continue;
		}
		step->event = event;
		step->reason = reason;
		step->ns = ns;
		step->slot = lbl_slot_below_top(layout, ns);
		step++;
	}
	return (uint32_t)(step - steps);
}

/* The backends that ids led to last. Index 0 is right for no event: its key is none's. */
static void find_by_id(const struct lbl_table *table, struct step *steps, uint32_t n)
{
	const uint32_t *by_id = table->by_id;
	struct lbl_hot *hot = table->hot;
	uint32_t i;

	for (i = 0; i < n; i++) {
		uint32_t id = steps[i].event->backend_id;

		steps[i].hot = &hot[likely(id < LBL_IDS_MAX) ? by_id[id] : 0];
		__builtin_prefetch(steps[i].hot, 1);
	}
}

static void find_by_hash(const struct lbl_table *table, struct step *steps, uint32_t n)
{
	uint32_t i;

	for (i = 0; i < n; i++) {
		steps[i].hash = lbl_table_hash(lbl_key_of(steps[i].event));
		__builtin_prefetch(lbl_table_entry(table, steps[i].hash));
	}
	for (i = 0; i < n; i++) {
		steps[i].hot = &table->hot[lbl_table_guess(table, steps[i].hash)];
		__builtin_prefetch(steps[i].hot, 1);
	}
}

/* Two long words and a short one without a branch: what memcmp() would be too careful for. */
static inline bool same_key(const struct lbl_key *a, const struct lbl_key *b)
{
	uint64_t a0, a1, b0, b1;
	uint32_t a2, b2;

	memcpy(&a0, a, 8);
	memcpy(&b0, b, 8);
	memcpy(&a1, (const char *)a + 8, 8);
	memcpy(&b1, (const char *)b + 8, 8);
	memcpy(&a2, (const char *)a + 16, 4);
	memcpy(&b2, (const char *)b + 16, 4);
	return !((a0 ^ b0) | (a1 ^ b1) | (a2 ^ b2));
}

/*
 * An id or a hash is a hint: the backend is the event's if it has the event's key. Returns how many
 * events have their counters before the first that has not.
 */
static uint32_t locate(struct step *steps, uint32_t n)
{
	uint32_t i;

	for (i = 0; i < n; i++) {
		struct step *step = &steps[i];
		const struct lbl_hot *hot = step->hot;
		uint32_t at = step->slot - hot->base;

		if (unlikely(at >= hot->len || !same_key(&hot->key, lbl_key_of(step->event))))
			break;
		step->counter = &hot->recent[at];
		__builtin_prefetch(step->counter, 1);
	}
	return i;
}

static uint32_t count(struct lbl_shard *shard, const struct step *steps, uint32_t n)
{
	struct lbl_table *table = &shard->table;
	const struct step *step;
	uint32_t failed = 0;

	for (step = steps; step < steps + n; step++) {
		struct lbl_hot *hot = step->hot;
		uint8_t counter;

		lbl_count_closed(table, hot, step->reason);
		if (likely(!__builtin_add_overflow(*step->counter, 1, &counter)))
			lbl_store(step->counter, counter);
		else if (lbl_table_count(table, shard->layout, lbl_index_of(table, hot), step->slot,
					 1)) {
			failed++;
			continue;
		}
		lbl_sum(table, hot, step->ns);
	}
	lbl_add(&shard->stats.closed, n);
	lbl_add(&shard->stats.recorded, n - failed);
	lbl_add(&shard->stats.rejected, failed);
	return n;
}

/* A producer gives ids or it does not, so the first event decides for the run. */
void lbl_shard_record_run(struct lbl_shard *shard, const void *first, uint32_t n)
{
	struct step steps[LBL_RUN_MAX];
	uint32_t plain, done;

	plain = begin(shard, first, n, steps);
	if (plain && steps[0].event->backend_id)
		find_by_id(&shard->table, steps, plain);
	else
		find_by_hash(&shard->table, steps, plain);
	for (done = 0; done < plain; done++) {
		done += count(shard, &steps[done], locate(&steps[done], plain - done));
		if (done < plain)
			lbl_shard_record(shard, steps[done].event, LBL_EVENT_BYTES);
	}
}
