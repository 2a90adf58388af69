// SPDX-License-Identifier: MIT
#include <stdlib.h>
#include <unistd.h>

#include "kernel/maps.h"
#include "stream/follow.h"

/* A producer may go on while its ring is drained, but is much slower. */
enum { ROUNDS_MAX = 100 };

int lbl_pin_copy(const struct lbl_pin *from, struct lbl_pin *ret)
{
	*ret = (struct lbl_pin){ 0 };
	if (!from || !from->path)
		return 0;
	*ret = *from;
	ret->path = strdup(from->path);
	ret->counters = from->counters ? strdup(from->counters) : NULL;
	if (ret->path && (ret->counters || !from->counters))
		return 0;
	lbl_pin_free(ret);
	return -ENOMEM;
}

void lbl_pin_free(struct lbl_pin *pin)
{
	free((void *)(uintptr_t)pin->path);
	free((void *)(uintptr_t)pin->counters);
	*pin = (struct lbl_pin){ 0 };
}

/* ---- the next ring ---- */

/* Returns an fd of the counters map, or a negative number. `pinned`: what is at the pin. */
static int open_counters(const struct lbl_pin *pin, int pinned)
{
	if (pin->keeps_counters)
		return -1;
	return pin->counters ? lbl_map_by_path(pin->counters)
			     : lbl_counters_find(pin->path, pinned);
}

static int open_next(const struct lbl_stream *stream, int pinned, int fd, struct lbl_inlet *ret)
{
	int counters = open_counters(&stream->pin, pinned);
	int err = lbl_inlet_open(fd, counters < 0 ? -1 : counters, ret);

	lbl_close(counters);
	return err;
}

/* ---- the swap ---- */

/* Returns whether nothing is left that a sink could be given. */
static bool drain_to_end(struct lbl_stream *stream)
{
	uint32_t round;

	for (round = 0; stream->n_sinks && round < ROUNDS_MAX; round++) {
		uint64_t end = lbl_drain_end(&stream->ring, &stream->counts);

		if (stream->ring.position == end)
			break;
		while (lbl_drain_batch(&stream->ring, end, stream->sinks, stream->n_sinks,
				       &stream->counts))
			;
	}
	return stream->ring.position == lbl_ring_end(&stream->ring);
}

/*
 * The old balancer may send on until the new one is attached. So the new ring is taken up when it
 * has events, or when no more came to the old one.
 */
static bool is_over(const struct lbl_stream *stream, const struct lbl_inlet *next)
{
	return lbl_ring_fill(&next->ring) || lbl_ring_end(&stream->ring) == stream->end_seen;
}

/* What a record that stays reserved holds back in the old ring will never come. */
static bool give_up(struct lbl_stream *stream)
{
	struct lbl_ring *ring = &stream->ring;

	if (!lbl_ring_stalled_since(ring, lbl_now_ns()))
		return false;
	lbl_owner_add(&stream->counts.taken,
		      lbl_ring_count(ring, ring->position, lbl_ring_end(ring)));
	return true;
}

static void exchange(struct lbl_stream *stream, struct lbl_inlet *next)
{
	struct lbl_inlet old = { stream->ring, stream->counters, stream->ring_fd, stream->map_id };

	lbl_counted_end_use(stream->counters);
	if (stream->pin.keeps_counters) {
		next->counters = old.counters;
		old.counters = NULL;
	}
	lbl_stream_put(stream, next);
	lbl_stream_begin(stream);
	lbl_owner_add(&stream->counts.replaced, 1);
	*next = old;
}

static bool swap(struct lbl_stream *stream, struct lbl_inlet *next)
{
	bool is_swapped;

	pthread_mutex_lock(&stream->lock);
	is_swapped = (drain_to_end(stream) && is_over(stream, next)) || give_up(stream);
	if (is_swapped)
		exchange(stream, next);
	pthread_mutex_unlock(&stream->lock);
	return is_swapped;
}

/* Unwatch a ring and give it back, unless it is an empty one in memory. */
static void leave(struct lbl_stream *stream, const struct lbl_inlet *inlet)
{
	if (inlet->ring.memory)
		return;
	lbl_stream_unwatch(stream, inlet->fd);
	lbl_claim_drop(&stream->claims, inlet->ring.consumer_pos);
}

/*
 * Another stream waits for our ring before it leaves the one that we want. So finish ours, and wait
 * with an empty one in memory.
 */
static void make_way(struct lbl_stream *stream)
{
	struct lbl_inlet empty;
	bool is_swapped;

	if (lbl_inlet_memory((uint32_t)stream->ring.page, &empty))
		return;
	pthread_mutex_lock(&stream->lock);
	is_swapped = drain_to_end(stream) || give_up(stream);
	if (is_swapped)
		exchange(stream, &empty);
	pthread_mutex_unlock(&stream->lock);
	if (is_swapped) {
		leave(stream, &empty);
		lbl_wish_clear(&stream->wish);
	}
	lbl_inlet_close(&empty);
}

/* Returns whether the stream has taken up the ring `fd`. Then `next` is the old one. */
static bool replace(struct lbl_stream *stream, int pinned, int fd)
{
	struct lbl_holder unused;
	struct lbl_inlet next;
	bool is_swapped = false;

	if (open_next(stream, pinned, fd, &next))
		return false;
	if (!lbl_claim_take(&stream->claims, next.ring.consumer_pos, &unused)) {
		if (!lbl_stream_watch(stream, next.fd))
			is_swapped = swap(stream, &next);
		leave(stream, &next);
	} else if (lbl_wish_set(&stream->wish, stream->map_id, next.map_id)) {
		make_way(stream);
	}
	lbl_inlet_close(&next);
	return is_swapped;
}

void lbl_follow(struct lbl_stream *stream)
{
	const struct lbl_pin *pin = &stream->pin;
	bool is_attached;
	int pinned, fd;
	int64_t id;

	if (!pin->path)
		return;
	lbl_wish_clear(&stream->wish);
	pinned = lbl_map_by_path(pin->path);
	fd = pinned >= 0 && pin->in_array ? lbl_map_inner(pinned, pin->index) : pinned;
	id = fd < 0 ? fd : lbl_map_id(fd);
	is_attached = id == stream->map_id || (id >= 0 && replace(stream, pinned, fd));
	WRITE_ONCE(&stream->attached, is_attached);
	stream->end_seen = lbl_ring_end(&stream->ring);
	if (pin->in_array)
		lbl_close(fd);
	lbl_close(pinned);
}
