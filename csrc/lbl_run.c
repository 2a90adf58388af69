// SPDX-License-Identifier: MIT
/*
 * The fast path: runs of our own closed events, taken through in stages. Each stage does a little
 * for every event and asks for the memory that the next one needs, so that the misses of a hundred
 * events overlap instead of adding up.
 */
#include "lbl_count.h"

/* An event on its way. */
struct step {
	const struct lbl_event *event;
	uint64_t ns;
	uint64_t hash; /* of its key, if it has no id */
	uint32_t index;
	uint32_t slot;
};

/* The closed event of a connection that lived: by far the most frequent kind. */
static inline bool is_plain(const struct lbl_event *event)
{
	return event->type == LBL_CLOSED && !(event->flags & LBL_FLAG_PROBE) &&
	       event->reason < LBL_HOT_REASONS && event->created_ns &&
	       event->timestamp_ns - event->created_ns <= LBL_TOP_NS;
}

/* Pick the plain events, and look up their slots. All others take the long way. */
static uint32_t begin(struct lbl_shard *shard, const char *first, uint32_t n, struct step *steps)
{
	uint32_t found = 0, i;

	for (i = 0; i < n; i++) {
		const struct lbl_event *event = (const void *)(first + i * 64UL);
		struct step *step = &steps[found];

		if (unlikely(!is_plain(event))) {
			lbl_shard_record(shard, event, sizeof(*event));
			continue;
		}
		step->event = event;
		step->ns = event->timestamp_ns - event->created_ns;
		step->slot = lbl_slot_below_top(shard->layout, step->ns);
		found++;
	}
	return found;
}

/* From ids to indexes; an event without one needs its hash first. */
static bool find_by_id(struct lbl_shard *shard, struct step *steps, uint32_t n)
{
	const struct lbl_table *table = &shard->table;
	bool have_all = true;
	uint32_t i;

	for (i = 0; i < n; i++) {
		struct step *step = &steps[i];
		uint32_t id = step->event->backend_id;

		step->index = likely(id < LBL_IDS_MAX) ? table->by_id[id] : 0;
		__builtin_prefetch(&table->hot[step->index], 1);
		have_all &= step->index != 0;
	}
	return have_all;
}

/* An id leads to the backend that it was last seen with. */
static void learn_id(struct lbl_table *table, const struct lbl_event *event, uint32_t index)
{
	if (event->backend_id && event->backend_id < LBL_IDS_MAX)
		table->by_id[event->backend_id] = index;
}

static void find_by_hash(struct lbl_shard *shard, struct step *steps, uint32_t n)
{
	struct lbl_table *table = &shard->table;
	uint32_t i;

	for (i = 0; i < n; i++) {
		steps[i].hash = lbl_table_hash(lbl_key_of(steps[i].event));
		__builtin_prefetch(lbl_table_entry(table, steps[i].hash));
	}
	for (i = 0; i < n; i++) {
		if (!steps[i].index) {
			steps[i].index = lbl_table_guess(table, steps[i].hash);
			learn_id(table, steps[i].event, steps[i].index);
		}
		__builtin_prefetch(&table->hot[steps[i].index], 1);
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

/* A wrong guess, or a backend not seen before. */
static __attribute__((noinline)) uint32_t find_again(struct lbl_shard *shard,
						     const struct lbl_event *event)
{
	uint32_t index = lbl_shard_backend(shard, lbl_key_of(event));

	learn_id(&shard->table, event, index);
	return index;
}

/* An id or a hash is a hint: the backend is the event's if it has the event's key. */
static void verify(struct lbl_shard *shard, struct step *steps, uint32_t n)
{
	const struct lbl_table *table = &shard->table;
	uint32_t i;

	for (i = 0; i < n; i++) {
		struct step *step = &steps[i];
		const struct lbl_hot *hot = &table->hot[step->index];

		if (unlikely(!step->index || !same_key(&hot->key, lbl_key_of(step->event)))) {
			step->index = find_again(shard, step->event);
			hot = &table->hot[step->index];
		}
		__builtin_prefetch(&hot->low[step->slot - hot->base], 1);
	}
}

static uint32_t count_all(struct lbl_shard *shard, const struct step *steps, uint32_t n)
{
	uint32_t recorded = 0, i;

	for (i = 0; i < n; i++) {
		const struct step *step = &steps[i];

		lbl_count_closed(shard, step->index, step->event->reason);
		recorded += lbl_count_in(shard, step->index, step->slot, step->ns);
	}
	return recorded;
}

void lbl_shard_record_run(struct lbl_shard *shard, const void *first, uint32_t n)
{
	struct step steps[LBL_RUN_MAX];
	uint32_t plain, recorded;

	plain = begin(shard, first, n, steps);
	if (!find_by_id(shard, steps, plain))
		find_by_hash(shard, steps, plain);
	verify(shard, steps, plain);
	recorded = count_all(shard, steps, plain);
	lbl_add(&shard->stats.closed, plain);
	lbl_add(&shard->stats.recorded, recorded);
	lbl_add(&shard->stats.rejected, plain - recorded);
}
