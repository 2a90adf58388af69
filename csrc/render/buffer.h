/* SPDX-License-Identifier: MIT */
/* Bytes of an output that grows. Its first failure stays, so that writers check only at the end. */
#ifndef LBL_RENDER_BUFFER_H
#define LBL_RENDER_BUFFER_H

#include "base/util.h"

/* The longest output, bytes: names can be long, and each of them comes many times. */
#define LBL_BUFFER_MAX (1ULL << 30)

struct lbl_buffer {
	char *at;
	size_t n, capacity;
	int err; /* 0 or -ENOMEM; nothing is added after it */
};

/* Free the bytes; legal on a zeroed struct, which is an empty buffer. */
void lbl_buffer_release(struct lbl_buffer *buffer);

/* Move the bytes to a larger place. Returns 0 or -ENOMEM, which it also stores. */
int lbl_buffer_grow(struct lbl_buffer *buffer, size_t more);

/* Return the end, where there is room for `more` bytes; NULL if there cannot be. */
static inline char *lbl_buffer_room(struct lbl_buffer *buffer, size_t more)
{
	if (unlikely(buffer->capacity - buffer->n < more) && lbl_buffer_grow(buffer, more))
		return NULL;
	return buffer->at + buffer->n;
}

static inline void lbl_put(struct lbl_buffer *buffer, const void *bytes, size_t n)
{
	char *to = n ? lbl_buffer_room(buffer, n) : NULL;

	if (likely(to)) {
		memcpy(to, bytes, n);
		buffer->n += n;
	}
}

static inline void lbl_put_text(struct lbl_buffer *buffer, const char *text)
{
	lbl_put(buffer, text, strlen(text));
}

#endif
