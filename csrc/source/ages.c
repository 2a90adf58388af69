// SPDX-License-Identifier: MIT
#include <stdlib.h>
#include <sys/random.h>

#include "base/util.h"
#include "source/ages.h"

enum { HEADS = 2 * LBL_AGES_BACKENDS }; /* half of them stay empty, so a search ends */

int lbl_age_table_init(struct lbl_age_table *table, const uint64_t *bounds, size_t n_bounds)
{
	size_t rows = LBL_AGES_BACKENDS + 1;

	*table = (struct lbl_age_table){ .bounds = bounds };
	table->ages.n_bounds = n_bounds;
	table->ages.rows = calloc(rows, sizeof(*table->ages.rows));
	table->ages.counts = calloc(rows, (n_bounds + 1) * sizeof(*table->ages.counts));
	table->heads = calloc(HEADS, sizeof(*table->heads));
	if (!table->ages.rows || !table->ages.counts || !table->heads) {
		free(table->heads);
		lbl_ages_free(&table->ages);
		return -ENOMEM;
	}
	if (getrandom(&table->seed, sizeof(table->seed), GRND_NONBLOCK) != sizeof(table->seed))
		table->seed = (uintptr_t)table->heads;
	return 0;
}

void lbl_ages_free(struct lbl_ages *ages)
{
	free(ages->rows);
	free(ages->counts);
	*ages = (struct lbl_ages){ 0 };
}

static bool is_same(const struct lbl_age_row *a, const struct lbl_age_row *b)
{
	return !memcmp(a->addr, b->addr, sizeof(a->addr)) && a->port == b->port &&
	       a->proxy_id == b->proxy_id;
}

/* The head of the backend's row, or the empty one where it belongs. */
static uint32_t *head_of(const struct lbl_age_table *table, const struct lbl_age_row *backend)
{
	uint64_t words[2], hash;
	size_t i;

	memcpy(words, backend->addr, sizeof(words));
	hash = (uint64_t)backend->proxy_id << 16 | backend->port;
	hash = lbl_mix(words[0] ^ table->seed, hash ^ 0x9e3779b97f4a7c15);
	hash = lbl_mix(words[1] ^ hash, 0xd6e8feb86659fd93 ^ table->seed);
	for (i = hash % HEADS; table->heads[i]; i = (i + 1) % HEADS) {
		if (is_same(&table->ages.rows[table->heads[i] - 1], backend))
			break;
	}
	return &table->heads[i];
}

/* Returns the number of the backend's row, which is made if there is room. */
static size_t row_of(struct lbl_age_table *table, const struct lbl_age_row *backend)
{
	static const struct lbl_age_row others;
	uint32_t *head = head_of(table, backend);

	if (!*head && table->ages.n >= LBL_AGES_BACKENDS)
		head = head_of(table, backend = &others);
	if (!*head) {
		struct lbl_age_row *row = &table->ages.rows[table->ages.n];

		memcpy(row->addr, backend->addr, sizeof(row->addr));
		row->port = backend->port;
		row->proxy_id = backend->proxy_id;
		*head = (uint32_t)++table->ages.n;
	}
	return *head - 1;
}

void lbl_age_table_add(struct lbl_age_table *table, const struct lbl_age_row *backend,
		       const uint64_t *age_ns)
{
	size_t row = row_of(table, backend), bound = 0;

	table->ages.rows[row].open++;
	if (!age_ns)
		return;
	while (bound<table->ages.n_bounds && * age_ns> table->bounds[bound])
		bound++;
	table->ages.rows[row].aged++;
	table->ages.rows[row].seconds += (double)*age_ns / 1e9;
	table->ages.counts[row * (table->ages.n_bounds + 1) + bound]++;
}

void lbl_age_table_end(struct lbl_age_table *table, struct lbl_ages *ret)
{
	*ret = table->ages;
	free(table->heads);
}
