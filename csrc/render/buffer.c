// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "render/buffer.h"

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
	buffer->at = larger;
	buffer->capacity = capacity;
	return 0;
}
