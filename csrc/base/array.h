/* SPDX-License-Identifier: MIT */
/* Memory that grows in place. */
#ifndef LBL_BASE_ARRAY_H
#define LBL_BASE_ARRAY_H

#include <stddef.h>
#include <stdint.h>

struct lbl_array {
	uint8_t *at;
	size_t reserved, usable; /* bytes */
};

/* Address space for `bytes`, none of it usable yet. -ENOMEM if there is not that much. */
int lbl_array_reserve(struct lbl_array *array, size_t bytes);
/* Have the first `bytes` usable, zeroed if they were not before. -ENOMEM if there are none. */
int lbl_array_grow(struct lbl_array *array, size_t bytes);
void lbl_array_release(struct lbl_array *array);

#endif
