// SPDX-License-Identifier: MIT
/* An array reserves its whole address space at once, and makes memory accessible as it grows. */
#include <sys/mman.h>
#include <unistd.h>

#include "base/array.h"
#include "base/util.h"

/* Size and alignment of a huge page on x86-64; on other processors, a convenient step. */
enum { STEP = 2 << 20 };

static size_t round_up(size_t bytes, size_t step)
{
	return (bytes + step - 1) & ~(step - 1);
}

static uint8_t *reserve(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* Align to huge pages: reserve a step more, and give back what lies before and after. */
static uint8_t *reserve_aligned(size_t bytes)
{
	uint8_t *p = reserve(bytes + STEP), *aligned;

	if (!p)
		return NULL;
	aligned = (uint8_t *)round_up((uintptr_t)p, STEP);
	if (aligned > p)
		munmap(p, (size_t)(aligned - p));
	munmap(aligned + bytes, (size_t)(p + STEP - aligned));
	if (bytes > STEP)
		madvise(aligned + STEP, bytes - STEP, MADV_HUGEPAGE);
	return aligned;
}

/*
 * Reserve the range without access: the kernel neither accounts such memory nor populates it, even
 * under mlockall(). Small arrays use small pages; large ones use huge pages, to save TLB entries.
 */
static int make(struct lbl_array *array, size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	*array = (struct lbl_array){ .reserved = round_up(bytes, bytes < STEP ? page : STEP) };
	array->at = array->reserved < STEP ? reserve(array->reserved)
					   : reserve_aligned(array->reserved);
	return array->at ? 0 : -ENOMEM;
}

int lbl_array_reserve(struct lbl_array *array, size_t bytes)
{
	struct lbl_array larger;

	if (bytes <= array->reserved)
		return 0;
	if (make(&larger, bytes))
		return -ENOMEM;
	if (lbl_array_grow(&larger, array->usable)) {
		lbl_array_release(&larger);
		return -ENOMEM;
	}
	if (array->usable)
		memcpy(larger.at, array->at, array->usable);
	lbl_array_release(array);
	*array = larger;
	return 0;
}

/* A small array becomes accessible as a whole. */
int lbl_array_grow(struct lbl_array *array, size_t bytes)
{
	if (likely(bytes <= array->usable))
		return 0;
	if (bytes > array->reserved)
		return -ENOMEM;
	bytes = round_up(bytes, STEP);
	if (bytes > array->reserved)
		bytes = array->reserved;
	if (mprotect(array->at + array->usable, bytes - array->usable, PROT_READ | PROT_WRITE))
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
