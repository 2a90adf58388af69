// SPDX-License-Identifier: MIT
#include <stdlib.h>
#include <sys/random.h>

#include "base/util.h"
#include "source/seen.h"

/* Closed events come late by what their ring holds; so what has vanished is kept for a while. */
static const uint64_t KEEP_NS = 10000000000;

/*
 * Packets that end a connection come after its closed event. Where creation times move, one of
 * these packets must not look like the next connection of the same tuple.
 */
static const uint64_t LINGER_NS = 500000000;

struct record {
	uint32_t next; /* of the chain, or of the free records; 0 = none */
	uint32_t scan; /* the last one that has found it; 0 = the record is free */
	uint64_t birth_ns; /* earliest creation time of the current connection; 0 = unknown */
	uint64_t used_ns; /* end of the last connection that was closed; 0 = none */
	uint64_t gone_ns; /* the first scan that did not find it; 0 = it is there */
	bool unsure; /* the birth may be that of an earlier connection, whose close has not come */
	uint64_t absent_ns; /* begin of the last complete scan before the first look; 0 = none */
	uint64_t look_ns; /* begin of the scan of the last look */
	bool is_exact; /* the first look found one packet, or times do not move */
	struct lbl_connection last; /* the last look */
};

struct lbl_seen_chunk {
	struct record records[LBL_SEEN_CHUNK];
};

int lbl_seen_init(struct lbl_seen *seen, uint32_t max_entries)
{
	uint32_t n = LBL_SEEN_CHUNK;

	memset(seen, 0, sizeof(*seen));
	while (n < max_entries && n < LBL_SEEN_MAX)
		n *= 2;
	seen->heads = calloc(n, sizeof(*seen->heads));
	if (!seen->heads)
		return -ENOMEM;
	seen->mask = n - 1;
	seen->scan = 1;
	if (getrandom(&seen->seed, sizeof(seen->seed), GRND_NONBLOCK) != sizeof(seen->seed))
		seen->seed = (uintptr_t)seen->heads;
	return 0;
}

void lbl_seen_set_watch(struct lbl_seen *seen, const struct lbl_seen_watch *watch)
{
	seen->watch = *watch;
}

void lbl_seen_clear(struct lbl_seen *seen)
{
	size_t i;

	for (i = 0; i < LBL_SEEN_MAX / LBL_SEEN_CHUNK; i++) {
		free(seen->chunks[i]);
		seen->chunks[i] = NULL;
	}
	memset(seen->heads, 0, ((size_t)seen->mask + 1) * sizeof(*seen->heads));
	seen->n_used = seen->free = seen->n = seen->last = 0;
	seen->complete_ns = 0;
}

void lbl_seen_destroy(struct lbl_seen *seen)
{
	lbl_seen_clear(seen);
	free(seen->heads);
}

/* ---- records by tuple; their numbers begin with 1 ---- */

static struct record *at(const struct lbl_seen *seen, uint32_t number)
{
	number--;
	return &seen->chunks[number / LBL_SEEN_CHUNK]->records[number % LBL_SEEN_CHUNK];
}

static uint32_t *head_of(const struct lbl_seen *seen, const struct lbl_connection *of)
{
	uint64_t words[4], hash;

	memcpy(words, of->client_addr, 16);
	memcpy(words + 2, of->backend_addr, 16);
	hash = (uint64_t)of->client_port << 24 | (uint64_t)of->backend_port << 8 | of->protocol;
	hash = lbl_mix(words[0] ^ seen->seed, hash ^ 0x9e3779b97f4a7c15 ^ seen->seed);
	hash = lbl_mix(words[1] ^ hash, words[2] ^ seen->seed);
	hash = lbl_mix(words[3] ^ hash, 0xd6e8feb86659fd93 ^ seen->seed);
	return &seen->heads[hash & seen->mask];
}

static bool same_tuple(const struct lbl_connection *a, const struct lbl_connection *b)
{
	return !memcmp(a->client_addr, b->client_addr, sizeof(a->client_addr)) &&
	       !memcmp(a->backend_addr, b->backend_addr, sizeof(a->backend_addr)) &&
	       a->client_port == b->client_port && a->backend_port == b->backend_port &&
	       a->protocol == b->protocol;
}

static uint32_t number_of(const struct lbl_seen *seen, const struct lbl_connection *of)
{
	uint32_t number = *head_of(seen, of);

	while (number && !same_tuple(&at(seen, number)->last, of))
		number = at(seen, number)->next;
	return number;
}

static struct record *find(const struct lbl_seen *seen, const struct lbl_connection *of)
{
	uint32_t number = number_of(seen, of);

	return number ? at(seen, number) : NULL;
}

/*
 * The same in a scan. Scans find what stays in the same order each time, and records are taken in the
 * order of the first: so it is most often the record after the last.
 */
static struct record *find_next(struct lbl_seen *seen, const struct lbl_connection *of)
{
	uint32_t number = seen->last < seen->n_used ? seen->last + 1 : 0;

	if (!number || !at(seen, number)->scan || !same_tuple(&at(seen, number)->last, of))
		number = number_of(seen, of);
	seen->last = number;
	return number ? at(seen, number) : NULL;
}

/* Returns the number of a free record, or 0 if there is no room. */
static uint32_t take_free(struct lbl_seen *seen)
{
	uint32_t number = seen->free;

	if (number) {
		seen->free = at(seen, number)->next;
		return number;
	}
	if (seen->n_used == LBL_SEEN_MAX)
		return 0;
	if (!seen->chunks[seen->n_used / LBL_SEEN_CHUNK])
		seen->chunks[seen->n_used / LBL_SEEN_CHUNK] =
			calloc(1, sizeof(struct lbl_seen_chunk));
	return seen->chunks[seen->n_used / LBL_SEEN_CHUNK] ? ++seen->n_used : 0;
}

/* Remember a connection that is not remembered yet, without a birth. NULL if there is no room. */
static struct record *insert(struct lbl_seen *seen, const struct lbl_connection *found)
{
	uint32_t number = take_free(seen), *head = head_of(seen, found);
	struct record *record;

	if (!number) {
		seen->forgotten++;
		return NULL;
	}
	record = at(seen, number);
	*record = (struct record){ .next = *head, .scan = seen->scan, .last = *found };
	*head = number;
	seen->n++;
	return record;
}

static void forget(struct lbl_seen *seen, uint32_t number)
{
	struct record *record = at(seen, number);
	uint32_t *link = head_of(seen, &record->last);

	while (*link != number)
		link = &at(seen, *link)->next;
	*link = record->next;
	*record = (struct record){ .next = seen->free };
	seen->free = number;
	seen->n--;
}

/* ---- what a later look tells ---- */

/* Creation times of this map do not move, so one look is as good as any other. */
static bool is_steady(const struct lbl_seen *seen)
{
	return seen->stayed && !seen->moved;
}

/* No birth until then is a later connection's than the last that was closed. */
static uint64_t used_until(const struct lbl_seen *seen, const struct record *record)
{
	return record->used_ns && !is_steady(seen) ? record->used_ns + LINGER_NS : record->used_ns;
}

static bool has_birth(const struct lbl_seen *seen, const struct record *record)
{
	return record->birth_ns > used_until(seen, record);
}

/*
 * DOUBT: times of this map do not move, but here is another one, and no close between. Either this is
 * a later connection, and the close was lost or is late, or times do move.
 */
enum change { SAME, MOVED, DOUBT, ANEW };

/* Is the entry still the same connection's as at the last look? */
static enum change compare(const struct lbl_seen *seen, const struct record *record,
			   const struct lbl_connection *look)
{
	if (record->gone_ns || look->packets_fwd < record->last.packets_fwd ||
	    !lbl_same_vip(look, &record->last))
		return ANEW;
	if (look->created_ns == record->last.created_ns)
		return SAME;
	if (has_birth(seen, record))
		return is_steady(seen) ? DOUBT : MOVED;
	if (is_steady(seen))
		return ANEW;
	return look->created_ns > used_until(seen, record) ? ANEW : MOVED;
}

/*
 * Learn whether the map's creation times move: only a connection whose close has not come tells. The
 * earliest of several CPUs' times stays also if each CPU overwrites its own, but not where the packets
 * come now.
 */
static void learn(struct lbl_seen *seen, const struct record *record, enum change change,
		  const struct lbl_connection *look)
{
	bool grew = look->packets_fwd > record->last.packets_fwd;

	if (!look->created_ns || !has_birth(seen, record))
		return;
	if (change == MOVED || (change == DOUBT && grew))
		seen->moved = true;
	else if (change == SAME && grew && !look->is_split)
		seen->stayed = true;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t birth_after(const struct lbl_seen *seen, const struct record *record,
			    enum change change, const struct lbl_connection *look)
{
	if (change == ANEW || !look->created_ns)
		return look->created_ns;
	return has_birth(seen, record) ? earlier(record->birth_ns, look->created_ns)
				       : record->birth_ns;
}

/* ---- what vanishes and appears ---- */

static struct lbl_sighting sighting_of(const struct record *record)
{
	return (struct lbl_sighting){ .last = &record->last,
				      .birth_ns = record->birth_ns,
				      .is_exact = record->is_exact,
				      .absent_ns = record->absent_ns,
				      .look_ns = record->look_ns };
}

static void tell(const struct lbl_seen *seen, const struct lbl_sighting *sighting)
{
	if (seen->watch.found)
		seen->watch.found(seen->watch.ctx, sighting);
}

/* The next connection was created before `next_ns`, if that is known, and before now in any case. */
static void tell_replaced(const struct lbl_seen *seen, const struct record *record,
			  uint64_t next_ns)
{
	struct lbl_sighting sighting = sighting_of(record);
	uint64_t now_ns = lbl_now_ns();

	sighting.is_replaced = true;
	sighting.until_ns = next_ns && next_ns < now_ns ? next_ns : now_ns;
	tell(seen, &sighting);
}

static void tell_vanished(const struct lbl_seen *seen, const struct record *record)
{
	struct lbl_sighting sighting = sighting_of(record);

	sighting.until_ns = lbl_now_ns();
	tell(seen, &sighting);
}

/* ---- scans ---- */

void lbl_seen_begin(struct lbl_seen *seen, uint64_t now_ns)
{
	if (!++seen->scan)
		seen->scan = 1;
	seen->scanning = true;
	seen->last = 0;
	seen->scan_ns = now_ns;
	seen->forgotten_before = seen->forgotten;
}

void lbl_seen_end(struct lbl_seen *seen)
{
	seen->scanning = false;
}

/* What no connection's counts do while it lasts. */
static bool has_less(const struct lbl_connection *look, const struct lbl_connection *last)
{
	return look->packets_rev < last->packets_rev || look->bytes_fwd < last->bytes_fwd ||
	       look->bytes_rev < last->bytes_rev;
}

/* Without closed events, counts decide what they can. */
static enum change decide(enum change change, const struct record *record,
			  const struct lbl_connection *look)
{
	if (has_less(look, &record->last))
		return ANEW;
	if (change == DOUBT)
		return look->packets_fwd > record->last.packets_fwd ? MOVED : ANEW;
	return change;
}

/* The first look at a connection. */
static void begin_record(const struct lbl_seen *seen, struct record *record,
			 const struct lbl_connection *found)
{
	struct lbl_sighting sighting;

	record->absent_ns = seen->complete_ns;
	record->is_exact = is_steady(seen) || found->packets_fwd + found->packets_rev == 1;
	record->look_ns = seen->scan_ns;
	sighting = sighting_of(record);
	tell(seen, &sighting);
}

void lbl_seen_add(struct lbl_seen *seen, const struct lbl_connection *found)
{
	struct record *record = find_next(seen, found);
	enum change change = ANEW;
	bool was_there = false;

	if (record) {
		if (seen->watch.found && record->scan == seen->scan) {
			seen->doubled++;
			return;
		}
		change = compare(seen, record, found);
		learn(seen, record, change, found);
		if (seen->watch.found)
			change = decide(change, record, found);
		if (change == DOUBT || change == ANEW)
			record->unsure = change == DOUBT;
		if (!lbl_same_vip(found, &record->last))
			record->used_ns = 0; /* that was the other's close */
		was_there = !record->gone_ns;
	} else {
		record = insert(seen, found);
		if (!record)
			return;
	}
	if (change == ANEW && was_there)
		tell_replaced(seen, record, found->created_ns);
	record->birth_ns = birth_after(seen, record, change, found);
	record->last = *found;
	record->scan = seen->scan;
	record->look_ns = seen->scan_ns;
	record->gone_ns = 0;
	if (change == ANEW)
		begin_record(seen, record, found);
}

bool lbl_seen_sweep(struct lbl_seen *seen, uint32_t *swept)
{
	uint64_t keep_ns = seen->watch.found ? 0 : KEEP_NS;
	uint32_t end = *swept + LBL_SEEN_SWEPT;

	if (end > seen->n_used)
		end = seen->n_used;
	while (*swept < end) {
		uint32_t number = ++*swept;
		struct record *record = at(seen, number);

		if (!record->scan || record->scan == seen->scan)
			continue;
		if (!record->gone_ns) {
			record->gone_ns = seen->scan_ns;
			tell_vanished(seen, record);
		} else if (seen->scan_ns - record->gone_ns > keep_ns) {
			forget(seen, number);
		}
	}
	if (*swept < seen->n_used)
		return true;
	if (seen->complete_ns)
		seen->span_ns = lbl_now_ns() - seen->complete_ns;
	seen->complete_ns = seen->forgotten == seen->forgotten_before ? seen->scan_ns : 0;
	return false;
}

bool lbl_seen_visit(const struct lbl_seen *seen, uint32_t *visited,
		    const struct lbl_seen_watch *visitor)
{
	uint32_t end = *visited + LBL_SEEN_SWEPT;

	if (end > seen->n_used)
		end = seen->n_used;
	while (*visited < end) {
		const struct record *record = at(seen, ++*visited);
		struct lbl_sighting sighting;

		if (!record->scan || record->gone_ns)
			continue;
		sighting = sighting_of(record);
		visitor->found(visitor->ctx, &sighting);
	}
	return *visited < seen->n_used;
}

/* ---- closed events ---- */

/* The entry is another VIP's now. No look but the present one has seen its connection. */
static void replace(struct record *record, const struct lbl_connection *look)
{
	record->last = *look;
	record->birth_ns = 0;
	record->used_ns = 0;
	record->unsure = false;
}

static enum lbl_seen_close born(const struct lbl_seen *seen, const struct record *record,
				uint64_t *created_ns)
{
	if (!record || !has_birth(seen, record))
		return LBL_SEEN_NONE;
	if (record->unsure)
		return LBL_SEEN_UNKNOWN;
	*created_ns = record->birth_ns;
	return LBL_SEEN_BORN;
}

/* Nobody has seen the connection before, so its creation time counts only if it cannot move. */
static enum lbl_seen_close born_at_look(const struct lbl_seen *seen, const struct record *record,
					const struct lbl_connection *look, uint64_t *created_ns)
{
	if (!is_steady(seen) || !look->created_ns)
		return LBL_SEEN_UNKNOWN;
	if (record && look->created_ns <= record->used_ns)
		return LBL_SEEN_NONE;
	*created_ns = look->created_ns;
	return LBL_SEEN_BORN;
}

/* The map has an entry for what was seen before. */
static enum lbl_seen_close born_by_both(struct lbl_seen *seen, const struct record *record,
					const struct lbl_connection *look, uint64_t ended_ns,
					uint64_t *created_ns)
{
	enum change change = compare(seen, record, look);

	/* The event may be late, and the entry that of the next connection. */
	if (change == DOUBT && look->created_ns > ended_ns)
		change = ANEW;
	learn(seen, record, change, look);
	if (change == ANEW) {
		if (look->created_ns > ended_ns && has_birth(seen, record))
			return born(seen, record, created_ns);
		return born_at_look(seen, record, look, created_ns);
	}
	if (has_birth(seen, record) && look->created_ns) {
		if (change == DOUBT || record->unsure)
			return LBL_SEEN_UNKNOWN;
		*created_ns = earlier(record->birth_ns, look->created_ns);
		return LBL_SEEN_BORN;
	}
	if (record->used_ns && change == SAME && look->packets_fwd == record->last.packets_fwd)
		return LBL_SEEN_NONE; /* it is what the last connection has left behind */
	return LBL_SEEN_UNKNOWN;
}

static enum lbl_seen_close find_born(struct lbl_seen *seen, const struct record *record,
				     const struct lbl_connection *look, uint64_t ended_ns,
				     uint64_t *created_ns)
{
	if (!look)
		return born(seen, record, created_ns);
	return record && record->birth_ns ? born_by_both(seen, record, look, ended_ns, created_ns)
					  : born_at_look(seen, record, look, created_ns);
}

enum lbl_seen_close lbl_seen_close(struct lbl_seen *seen, const struct lbl_connection *event,
				   const struct lbl_connection *look, uint64_t ended_ns,
				   uint64_t *created_ns)
{
	struct record *record = find(seen, event);
	enum lbl_seen_close found;

	/* What has another VIP is another connection's. */
	if (look && !lbl_same_vip(look, event))
		look = NULL;
	if (record && !lbl_same_vip(&record->last, event)) {
		if (!look)
			return LBL_SEEN_NONE;
		replace(record, look);
	}
	found = find_born(seen, record, look, ended_ns, created_ns);
	/* A scan that is under way may have read an entry that is deleted by now. */
	if (!record && (look || seen->scanning))
		record = insert(seen, look ? look : event);
	if (record && ended_ns > record->used_ns)
		record->used_ns = ended_ns < UINT64_MAX - LINGER_NS ? ended_ns
								    : UINT64_MAX - LINGER_NS;
	return found;
}
