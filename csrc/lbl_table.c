// SPDX-License-Identifier: MIT
/* Backends and their counters. One owner writes; readers look on without a lock. */
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "lbl_internal.h"

enum { FIRST_HASH = 64 };

/* Address space, of which the kernel backs only what is touched; zeroed. */
static void *reserve(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* Beyond this, the entries of small pages would not fit into the TLB. */
enum { MANY_BYTES = 1 << 20, MANY_BACKENDS = 1 << 12 };

static void release(void *p, size_t bytes)
{
	if (p)
		munmap(p, bytes);
}

static size_t hash_bytes(const struct lbl_table *table)
{
	return ((size_t)table->hash_mask + 1) * sizeof(*table->hash);
}

int lbl_table_init(struct lbl_table *table, uint32_t max)
{
	memset(table, 0, sizeof(*table));
	table->max = max;
	table->n = 1;
	if (getrandom(&table->seed, sizeof(table->seed), GRND_NONBLOCK) != sizeof(table->seed))
		table->seed = (uintptr_t)table;
	table->hot = reserve(((size_t)max + 1) * sizeof(*table->hot));
	table->cold = reserve(((size_t)max + 1) * sizeof(*table->cold));
	table->by_id = reserve(LBL_IDS_MAX * sizeof(*table->by_id));
	table->hash = reserve(FIRST_HASH * sizeof(*table->hash));
	table->hash_mask = FIRST_HASH - 1;
	if (table->hot && table->cold && table->by_id && table->hash) {
		/* No event has this key, so that none is taken for the overflow's own. */
		memset(&table->hot[0].key, 0xff, sizeof(table->hot[0].key));
		return 0;
	}
	lbl_table_destroy(table);
	return -ENOMEM;
}

static uint32_t lines_of(const struct lbl_window *window)
{
	return (window->len + LBL_LINE - 1U) / LBL_LINE;
}

static void free_window(struct lbl_table *table, struct lbl_window *window)
{
	if (!window)
		return;
	if (window->recent)
		lbl_arena_free(&table->arena, window->recent, lines_of(window));
	free(window->low);
	free(window->high);
	free(window);
}

static void free_retired(struct lbl_table *table)
{
	while (table->retired) {
		struct lbl_window *next = table->retired->next;

		free_window(table, table->retired);
		table->retired = next;
	}
}

void lbl_table_destroy(struct lbl_table *table)
{
	uint32_t i;

	for (i = 0; table->cold && i < table->n; i++)
		free_window(table, table->cold[i].window);
	free_retired(table);
	lbl_arena_destroy(&table->arena);
	release(table->hot, ((size_t)table->max + 1) * sizeof(*table->hot));
	release(table->cold, ((size_t)table->max + 1) * sizeof(*table->cold));
	release(table->by_id, LBL_IDS_MAX * sizeof(*table->by_id));
	release(table->hash, hash_bytes(table));
	memset(table, 0, sizeof(*table));
}

/* ---- which backend ---- */

static bool key_equal(const struct lbl_key *a, const struct lbl_key *b)
{
	return !memcmp(a, b, sizeof(*a));
}

uint32_t lbl_table_find(const struct lbl_table *table, const struct lbl_key *key)
{
	uint64_t hash = lbl_table_hash(table, key), entry;
	uint32_t i;

	for (i = (uint32_t)hash & table->hash_mask; (entry = table->hash[i]);
	     i = (i + 1) & table->hash_mask) {
		if (entry >> 32 == hash >> 32 && key_equal(&table->hot[(uint32_t)entry].key, key))
			return (uint32_t)entry;
	}
	return 0;
}

static void hash_put(uint64_t *entries, uint32_t mask, uint64_t hash, uint32_t index)
{
	uint32_t i = (uint32_t)hash & mask;

	while (entries[i])
		i = (i + 1) & mask;
	entries[i] = (hash & ~0xffffffffULL) | index;
}

/* Keep the load at a quarter: most look-ups then touch one line. */
static int hash_grow(struct lbl_table *table)
{
	uint32_t mask = (table->hash_mask << 2) | 3, i;
	size_t bytes = ((size_t)mask + 1) * sizeof(uint64_t);
	uint64_t *entries = reserve(bytes);

	if (!entries)
		return -ENOMEM;
	if (bytes >= MANY_BYTES)
		madvise(entries, bytes, MADV_HUGEPAGE);
	for (i = 1; i < table->n; i++)
		hash_put(entries, mask, lbl_table_hash(table, &table->hot[i].key), i);
	release(table->hash, hash_bytes(table));
	table->hash = entries;
	table->hash_mask = mask;
	return 0;
}

uint32_t lbl_table_insert(struct lbl_table *table, const struct lbl_key *key, uint16_t name)
{
	uint32_t index = table->n;

	if (index > table->max)
		return 0;
	if (index > table->hash_mask / 4 && hash_grow(table))
		return 0;
	if (index == MANY_BACKENDS)
		madvise(table->hot, ((size_t)table->max + 1) * sizeof(*table->hot), MADV_HUGEPAGE);
	table->hot[index].key = *key;
	table->cold[index].name = name;
	hash_put(table->hash, table->hash_mask, lbl_table_hash(table, key), index);
	__atomic_store_n(&table->n, index + 1, __ATOMIC_RELEASE);
	return index;
}

/* ---- counters ---- */

static void carry_begin(struct lbl_cold *cold)
{
	lbl_add(&cold->carries, 1);
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

static void carry_end(struct lbl_cold *cold)
{
	__atomic_store_n(&cold->carries, cold->carries + 1, __ATOMIC_RELEASE);
}

void lbl_table_add_sum(struct lbl_table *table, uint32_t index, lbl_u128 ns)
{
	struct lbl_cold *cold = &table->cold[index];
	struct lbl_hot *hot = &table->hot[index];
	lbl_u128 sum = hot->sum + ns;

	if (likely(!(sum >> 63))) {
		lbl_store(&hot->sum, (uint64_t)sum);
		return;
	}
	carry_begin(cold);
	lbl_store(&hot->sum, (uint64_t)sum & (UINT64_MAX >> 1));
	lbl_add(&cold->sum_carry, (uint64_t)(sum >> 63));
	carry_end(cold);
}

void lbl_table_add_closed(struct lbl_table *table, uint32_t index, uint32_t reason, uint64_t n)
{
	struct lbl_cold *cold = &table->cold[index];
	uint32_t *low;
	uint64_t sum;

	if (reason >= LBL_HOT_REASONS) {
		lbl_add(&cold->connect_failed, n);
		return;
	}
	low = &table->hot[index].closed[reason];
	sum = *low + n;
	if (likely(!(sum >> 32))) {
		lbl_store(low, (uint32_t)sum);
		return;
	}
	carry_begin(cold);
	lbl_store(low, (uint32_t)sum);
	lbl_add(&cold->closed_carry[reason], (uint32_t)(sum >> 32));
	carry_end(cold);
}

/* A reader may still be looking at it: then it is freed at the read's end. */
static void retire(struct lbl_table *table, struct lbl_window *window)
{
	if (!window || !table->is_read) {
		free_window(table, window);
		return;
	}
	window->next = table->retired;
	table->retired = window;
}

static struct lbl_window *window_new(struct lbl_table *table, uint32_t base, uint32_t end)
{
	struct lbl_window *window = calloc(1, sizeof(*window));

	if (!window)
		return NULL;
	window->base = (uint16_t)base;
	window->len = (uint16_t)(end - base);
	window->recent = lbl_arena_alloc(&table->arena, lines_of(window));
	if (!window->recent) {
		free(window);
		return NULL;
	}
	return window;
}

/* One of the arrays of carries moved to where it belongs in a larger window. */
static bool copy_carries(uint32_t **to, const struct lbl_window *window, const uint32_t *from,
			 const struct lbl_window *old)
{
	if (!from)
		return true;
	*to = calloc(window->len, sizeof(**to));
	if (!*to)
		return false;
	memcpy(*to + (old->base - window->base), from, old->len * sizeof(*from));
	return true;
}

/* Put a larger window in the place of a backend's own, with what that had counted. */
static struct lbl_window *replace_window(struct lbl_table *table, uint32_t index, uint32_t base,
					 uint32_t end)
{
	struct lbl_cold *cold = &table->cold[index];
	struct lbl_hot *hot = &table->hot[index];
	struct lbl_window *old = cold->window;
	struct lbl_window *window = window_new(table, base, end);

	if (!window)
		return NULL;
	if (old && (!copy_carries(&window->low, window, old->low, old) ||
		    !copy_carries(&window->high, window, old->high, old))) {
		free_window(table, window);
		return NULL;
	}
	if (old)
		memcpy(window->recent + (old->base - base), old->recent, old->len);
	hot->base = window->base;
	hot->len = window->len;
	hot->recent = window->recent;
	__atomic_store_n(&cold->window, window, __ATOMIC_RELEASE);
	retire(table, old);
	return window;
}

/* An octave, where windows begin and end. */
enum { OCTAVE = LBL_NATIVE_PER_OCTAVE };

/*
 * The backend's window if it has the slot, else a new one that does. It grows in the direction of
 * the slot and at least doubles, so that it seldom grows again.
 */
static struct lbl_window *window_for(struct lbl_table *table, const struct lbl_layout *layout,
				     uint32_t index, uint32_t slot)
{
	struct lbl_window *window = table->cold[index].window;
	uint32_t base = slot / OCTAVE * OCTAVE, end = base + OCTAVE;

	if (window) {
		uint32_t old_base = window->base, len = window->len, old_end = old_base + len;

		if (slot >= old_base && slot < old_end)
			return window;
		if (slot >= old_end) {
			base = old_base;
			end = end < old_end + len ? (old_end + len) / OCTAVE * OCTAVE : end;
		} else {
			end = old_end;
			if (base + len > old_base)
				base = old_base > len ? (old_base - len) / OCTAVE * OCTAVE : 0;
		}
	}
	return replace_window(table, index, base, end < layout->n_slots ? end : layout->n_slots);
}

/* Make sure that there is an array to carry into. */
static bool need_carries(uint32_t **array, const struct lbl_window *window)
{
	uint32_t *made;

	if (*array)
		return true;
	made = calloc(window->len, sizeof(*made));
	if (made)
		__atomic_store_n(array, made, __ATOMIC_RELEASE);
	return made;
}

static int carry(struct lbl_cold *cold, struct lbl_window *window, uint32_t i, uint64_t sum)
{
	uint64_t low;

	if (!need_carries(&window->low, window))
		return -ENOMEM;
	low = window->low[i] + (sum >> 8);
	if (low >> 32 && !need_carries(&window->high, window))
		return -ENOMEM;
	carry_begin(cold);
	lbl_store(&window->recent[i], (uint8_t)sum);
	lbl_store(&window->low[i], (uint32_t)low);
	if (low >> 32)
		lbl_add(&window->high[i], (uint32_t)(low >> 32));
	carry_end(cold);
	return 0;
}

int lbl_table_count(struct lbl_table *table, const struct lbl_layout *layout, uint32_t index,
		    uint32_t slot, uint64_t n)
{
	struct lbl_window *window;
	uint64_t sum;
	uint32_t i;

	window = window_for(table, layout, index, slot);
	if (!window)
		return -ENOMEM;
	i = slot - window->base;
	sum = window->recent[i] + n;
	if (sum >> 8)
		return carry(&table->cold[index], window, i, sum);
	lbl_store(&window->recent[i], (uint8_t)sum);
	return 0;
}

/* ---- reading ---- */

/* One look at a backend, to be repeated if a carry was under way. */
struct look {
	const struct lbl_window *window;
	uint64_t sum, sum_carry;
	uint64_t closed[LBL_HOT_REASONS];
	uint64_t slots[LBL_SLOTS_MAX];
};

static void add_carries(struct look *look, uint32_t *const *array, uint32_t len, int shift)
{
	const uint32_t *carries = __atomic_load_n(array, __ATOMIC_ACQUIRE);
	uint32_t i;

	for (i = 0; carries && i < len; i++)
		look->slots[i] += (uint64_t)lbl_load(&carries[i]) << shift;
}

static void look_at(const struct lbl_hot *hot, const struct lbl_cold *cold, struct look *look)
{
	const struct lbl_window *window = __atomic_load_n(&cold->window, __ATOMIC_ACQUIRE);
	uint32_t i;

	look->window = window;
	look->sum = lbl_load(&hot->sum);
	look->sum_carry = lbl_load(&cold->sum_carry);
	for (i = 0; i < LBL_HOT_REASONS; i++)
		look->closed[i] = lbl_load(&hot->closed[i]) +
				  ((uint64_t)lbl_load(&cold->closed_carry[i]) << 32);
	if (!window)
		return;
	for (i = 0; i < window->len; i++)
		look->slots[i] = lbl_load(&window->recent[i]);
	add_carries(look, &window->low, window->len, 8);
	add_carries(look, &window->high, window->len, 40);
}

void lbl_table_read_begin(struct lbl_table *table)
{
	table->is_read = true;
}

void lbl_table_read_end(struct lbl_table *table)
{
	table->is_read = false;
	free_retired(table);
}

void lbl_totals_clear(struct lbl_totals *totals)
{
	if (totals->end > totals->first)
		memset(totals->slots + totals->first, 0,
		       (totals->end - totals->first) * sizeof(*totals->slots));
	memset(totals, 0, offsetof(struct lbl_totals, slots));
	totals->first = LBL_SLOTS_MAX;
}

/* Connections that have ended, however. */
static int64_t ended(const struct lbl_cold *cold, const struct look *look)
{
	uint64_t n = lbl_load(&cold->connect_failed) + lbl_load(&cold->probes);
	uint32_t i;

	for (i = 0; i < LBL_HOT_REASONS; i++)
		n += look->closed[i];
	return (int64_t)n;
}

void lbl_table_read(const struct lbl_table *table, uint32_t index, struct lbl_totals *totals)
{
	const struct lbl_cold *cold = &table->cold[index];
	const struct lbl_hot *hot = &table->hot[index];
	const struct lbl_window *window;
	struct look look;
	uint32_t carries, i;

	/* Most events carry nothing, so this ends. Pairs with carry_begin(). */
	do {
		carries = __atomic_load_n(&cold->carries, __ATOMIC_ACQUIRE);
		look_at(hot, cold, &look);
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while (carries & 1 || carries != lbl_load(&cold->carries));

	totals->sum += look.sum + ((lbl_u128)look.sum_carry << 63);
	totals->opened += lbl_load(&cold->opened);
	totals->probes += lbl_load(&cold->probes);
	totals->closed[LBL_REASON_CONNECT_FAILED] += lbl_load(&cold->connect_failed);
	for (i = 0; i < LBL_HOT_REASONS; i++)
		totals->closed[i] += look.closed[i];
	if (table->sees_opens)
		totals->open += (int64_t)lbl_load(&cold->opened) - ended(cold, &look);
	window = look.window;
	if (!window)
		return;
	for (i = 0; i < window->len; i++)
		totals->slots[window->base + i] += look.slots[i];
	if (window->base < totals->first)
		totals->first = window->base;
	if (window->base + (uint32_t)window->len > totals->end)
		totals->end = window->base + (uint32_t)window->len;
}

/* What is open stays open, where the closing will be seen. */
void lbl_table_clear(struct lbl_table *table, uint32_t index)
{
	struct lbl_cold *cold = &table->cold[index];
	struct lbl_hot *hot = &table->hot[index];
	struct lbl_key key = hot->key;
	uint16_t name = cold->name;
	struct look look;
	int64_t open;

	look_at(hot, cold, &look);
	open = (int64_t)cold->opened - ended(cold, &look);
	free_window(table, cold->window);
	memset(hot, 0, sizeof(*hot));
	memset(cold, 0, sizeof(*cold));
	hot->key = key;
	cold->name = name;
	cold->opened = table->sees_opens && open > 0 ? (uint64_t)open : 0;
}
