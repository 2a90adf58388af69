// SPDX-License-Identifier: MIT
/*
 * The fast path: runs of our own closed events. With few backends, one after the other. With many,
 * all together in stages, each of which asks for the memory that the next one needs, so that the
 * waits of a whole run overlap instead of adding up. What is not plain goes the long way.
 */
#include <endian.h>

#include "lbl_count.h"

/* As many backends as have their counters in the first- and second-level caches anyway. */
enum { FEW = 64 };

/* An event on its way. */
struct step {
	const struct lbl_event *event;
	struct lbl_hot *hot;
	uint8_t *counter;
	uint64_t ns;
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

/*
 * Take a plain event, by far the most frequent kind, up to its slot; false if it is none. One
 * compare tells that the creation is known, since 0 - 1 is the largest number, and that it is not
 * in the future.
 */
static inline bool begin(const struct lbl_shard *shard, const struct lbl_event *event,
			 struct step *step)
{
	uint64_t ns = event->timestamp_ns - event->created_ns;
	uint32_t reason = plain_reason(event);

	if (unlikely(reason >= LBL_HOT_REASONS || ns > LBL_TOP_NS ||
		     event->created_ns - 1 >= event->timestamp_ns))
		return false;
	step->event = event;
	step->ns = ns;
	step->slot = lbl_slot_below_top(shard->layout, ns);
	step->reason = reason;
	return true;
}

/*
 * Backends are guessed first: an id leads to what it led to last, a hash to the first entry that
 * may be the key's. Index 0 is right for no event, since its key is none's.
 */
static inline struct lbl_hot *guess_by_id(const struct lbl_table *table, uint32_t id)
{
	return &table->hot[*lbl_table_by_id(table, id)];
}

static inline struct lbl_hot *guess_by_hash(const struct lbl_table *table, uint64_t hash)
{
	return &table->hot[lbl_table_guess(table, hash)];
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

/* The event's counter, if its backend is the one guessed and has one for it, else NULL. */
static inline uint8_t *counter_of(const struct step *step)
{
	const struct lbl_hot *hot = step->hot;
	uint32_t at = step->slot - hot->base;

	if (unlikely(at >= hot->len || !same_key(&hot->key, lbl_key_of(step->event))))
		return NULL;
	return &hot->recent[at];
}

/* False if there was no memory for it. */
static inline bool count(struct lbl_shard *shard, const struct step *step, uint8_t *counter)
{
	struct lbl_table *table = &shard->table;
	struct lbl_hot *hot = step->hot;
	uint8_t sum;

	lbl_count_closed(table, hot, step->reason);
	if (likely(!__builtin_add_overflow(*counter, 1, &sum)))
		lbl_store(counter, sum);
	else if (lbl_table_count(table, shard->layout, lbl_index_of(table, hot), step->slot, 1))
		return false;
	lbl_sum(table, hot, step->ns);
	return true;
}

static void account(struct lbl_shard *shard, uint32_t counted, uint32_t failed)
{
	lbl_add(&shard->stats.closed, counted);
	lbl_add(&shard->stats.recorded, counted - failed);
	lbl_add(&shard->stats.rejected, failed);
}

/* ---- few backends ---- */

static void record_few(struct lbl_shard *shard, const char *first, const char *end)
{
	const struct lbl_table *table = &shard->table;
	uint32_t counted = 0, failed = 0;

	for (; first < end; first += 64) {
		const struct lbl_event *event = (const void *)first;
		uint8_t *counter = NULL;
		struct step step;

		if (likely(begin(shard, event, &step))) {
			step.hot =
				event->backend_id
					? guess_by_id(table, event->backend_id)
					: guess_by_hash(table,
							lbl_table_hash(table, lbl_key_of(event)));
			counter = counter_of(&step);
		}
		if (likely(counter)) {
			failed += !count(shard, &step, counter);
			counted++;
		} else {
			lbl_shard_record(shard, event, LBL_EVENT_BYTES);
		}
	}
	account(shard, counted, failed);
}

/* ---- many backends ---- */

static uint32_t begin_all(struct lbl_shard *shard, const char *first, const char *end,
			  struct step *steps)
{
	struct step *step = steps;

	for (; first < end; first += 64) {
		const struct lbl_event *event = (const void *)first;

		if (unlikely(!begin(shard, event, step))) {
			lbl_shard_record(shard, event, LBL_EVENT_BYTES);
			continue;
		}
		step->hot = guess_by_id(&shard->table, event->backend_id);
		__builtin_prefetch(step->hot, 1);
		step++;
	}
	return (uint32_t)(step - steps);
}

static void guess_all_by_hash(const struct lbl_table *table, struct step *steps, uint32_t n)
{
	uint64_t hash[LBL_RUN_MAX];
	uint32_t i;

	for (i = 0; i < n; i++) {
		hash[i] = lbl_table_hash(table, lbl_key_of(steps[i].event));
		__builtin_prefetch(lbl_table_entry(table, hash[i]));
	}
	for (i = 0; i < n; i++) {
		steps[i].hot = guess_by_hash(table, hash[i]);
		__builtin_prefetch(steps[i].hot, 1);
	}
}

/* Count until an event has no counter. Returns how many had one. */
static uint32_t count_all(struct lbl_shard *shard, struct step *steps, uint32_t n)
{
	struct step *step, *end;
	uint32_t failed = 0;

	for (end = steps; end < steps + n; end++) {
		end->counter = counter_of(end);
		if (unlikely(!end->counter))
			break;
		__builtin_prefetch(end->counter, 1);
	}
	for (step = steps; step < end; step++)
		failed += !count(shard, step, step->counter);
	account(shard, (uint32_t)(end - steps), failed);
	return (uint32_t)(end - steps);
}

/* A producer gives ids or it does not, so the first event decides for the run. */
static void record_many(struct lbl_shard *shard, const char *first, const char *end)
{
	struct step steps[LBL_RUN_MAX];
	uint32_t n, done;

	n = begin_all(shard, first, end, steps);
	if (n && !steps[0].event->backend_id)
		guess_all_by_hash(&shard->table, steps, n);
	for (done = 0; done < n; done++) {
		done += count_all(shard, &steps[done], n - done);
		if (done < n)
			lbl_shard_record(shard, steps[done].event, LBL_EVENT_BYTES);
	}
}

void lbl_shard_record_run(struct lbl_shard *shard, const void *first, uint32_t n)
{
	const char *end = (const char *)first + n * 64UL;

	if (shard->table.n <= FEW)
		record_few(shard, first, end);
	else
		record_many(shard, first, end);
}
