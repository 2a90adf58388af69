// SPDX-License-Identifier: MIT
/* An array reserves its whole address space at once, and makes memory accessible as it grows. */
#include <sys/mman.h>

#include "base/array.h"
#include "base/util.h"

/* Size and alignment of a huge page on x86-64; on other processors, a convenient step. */
enum { STEP = 2 << 20 };

static size_t round_up(size_t bytes)
{
	return (bytes + STEP - 1) & ~(size_t)(STEP - 1);
}

/*
 * Reserve the range without access: the kernel neither accounts such memory nor populates it, even
 * under mlockall(). Small arrays use small pages; large ones use huge pages, to save TLB entries.
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
