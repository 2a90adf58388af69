// SPDX-License-Identifier: MIT
/* Zeroed memory in cache lines, dense so that few pages hold many backends. One owner. */
#include <stdlib.h>
#include <sys/mman.h>

#include "lbl_internal.h"

/* The size and alignment of a huge page; elsewhere just a size. */
enum { CHUNK = 2 << 20 };

struct lbl_chunk {
	struct lbl_chunk *next;
	void *memory;
};

/* Aligned: map twice as much and give the ends back. */
static void *map_chunk(void)
{
	uint8_t *p, *aligned;

	p = mmap(NULL, 2 * CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	aligned = (uint8_t *)(((uintptr_t)p + CHUNK - 1) & ~(uintptr_t)(CHUNK - 1));
	if (aligned > p)
		munmap(p, (size_t)(aligned - p));
	munmap(aligned + CHUNK, (size_t)(p + CHUNK - aligned));
	return aligned;
}

/* A few backends fit into small pages; many would not into the TLB. */
static bool add_chunk(struct lbl_arena *arena)
{
	struct lbl_chunk *chunk = malloc(sizeof(*chunk));

	if (!chunk)
		return false;
	chunk->memory = map_chunk();
	if (!chunk->memory) {
		free(chunk);
		return false;
	}
	if (arena->chunks)
		madvise(chunk->memory, CHUNK, MADV_HUGEPAGE);
	chunk->next = arena->chunks;
	arena->chunks = chunk;
	arena->at = chunk->memory;
	arena->left = CHUNK / LBL_LINE;
	return true;
}

void *lbl_arena_alloc(struct lbl_arena *arena, uint32_t lines)
{
	void **spare = arena->spare[lines];
	void *p;

	if (spare) {
		arena->spare[lines] = *spare;
		return memset(spare, 0, lines * (size_t)LBL_LINE);
	}
	if (lines > arena->left && !add_chunk(arena))
		return NULL;
	p = arena->at;
	arena->at += lines * (size_t)LBL_LINE;
	arena->left -= lines;
	return p;
}

void lbl_arena_free(struct lbl_arena *arena, void *p, uint32_t lines)
{
	void **spare = p;

	*spare = arena->spare[lines];
	arena->spare[lines] = spare;
}

void lbl_arena_destroy(struct lbl_arena *arena)
{
	while (arena->chunks) {
		struct lbl_chunk *next = arena->chunks->next;

		munmap(arena->chunks->memory, CHUNK);
		free(arena->chunks);
		arena->chunks = next;
	}
	memset(arena, 0, sizeof(*arena));
}
