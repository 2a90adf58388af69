// SPDX-License-Identifier: MIT
/*
 * Arrays that grow in place: address space for all there may ever be, memory for what there is. So
 * what is in them never moves, and readers may look on while they grow.
 */
#include <sys/mman.h>

#include "base/array.h"
#include "base/util.h"

/* The size and alignment of a huge page; elsewhere just a size. */
enum { STEP = 2 << 20 };

static size_t round_up(size_t bytes)
{
	return (bytes + STEP - 1) & ~(size_t)(STEP - 1);
}

/*
 * Inaccessible at first: then it is not accounted, and gets no pages even under mlockall(). Small
 * arrays make do with small pages; of large ones, those would not fit into the TLB.
 */
int lbl_array_reserve(struct lbl_array *array, size_t bytes)
{
	uint8_t *p, *aligned;

	bytes = round_up(bytes);
	p = mmap(NULL, bytes + STEP, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -ENOMEM;
	aligned = (uint8_t *)round_up((uintptr_t)p);
	if (aligned > p)
		munmap(p, (size_t)(aligned - p));
	munmap(aligned + bytes, (size_t)(p + STEP - aligned));
	if (bytes > STEP)
		madvise(aligned + STEP, bytes - STEP, MADV_HUGEPAGE);
	*array = (struct lbl_array){ .at = aligned, .reserved = bytes };
	return 0;
}

int lbl_array_grow(struct lbl_array *array, size_t bytes)
{
	if (likely(bytes <= array->usable))
		return 0;
	bytes = round_up(bytes);
	if (bytes > array->reserved ||
	    mprotect(array->at + array->usable, bytes - array->usable, PROT_READ | PROT_WRITE))
		return -ENOMEM;
	array->usable = bytes;
	return 0;
}

void lbl_array_release(struct lbl_array *array)
{
	if (array->at)
		munmap(array->at, array->reserved);
	*array = (struct lbl_array){ 0 };
}
