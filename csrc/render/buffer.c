// SPDX-License-Identifier: MIT
#include <stdlib.h>
#include <sys/mman.h>

#include "render/buffer.h"

enum { HUGE = 2 << 20, HUGE_FROM = 2 * HUGE };

void lbl_buffer_release(struct lbl_buffer *buffer)
{
	free(buffer->at);
	*buffer = (struct lbl_buffer){ 0 };
}

static int fail(struct lbl_buffer *buffer)
{
	buffer->err = -ENOMEM;
	buffer->capacity = buffer->n; /* so that all that comes later ends here */
	return -ENOMEM;
}

/* A large output is written once: half its time would go into faults of small pages. */
static void prefer_huge(char *at, size_t n)
{
	uintptr_t first = ((uintptr_t)at + HUGE - 1) & -(uintptr_t)HUGE;
	uintptr_t end = ((uintptr_t)at + n) & -(uintptr_t)HUGE;

	if (first < end)
		madvise((void *)first, end - first, MADV_HUGEPAGE);
}

int lbl_buffer_grow(struct lbl_buffer *buffer, size_t more)
{
	size_t capacity = buffer->capacity ? buffer->capacity : 4096;
	char *larger;

	if (buffer->err || more > LBL_BUFFER_MAX - buffer->n)
		return fail(buffer);
	while (capacity < buffer->n + more)
		capacity *= 2;
	larger = realloc(buffer->at, capacity);
	if (!larger)
		return fail(buffer);
	if (capacity >= HUGE_FROM)
		prefer_huge(larger, capacity);
	buffer->at = larger;
	buffer->capacity = capacity;
	return 0;
}
