/* SPDX-License-Identifier: MIT */
/*
 * Interned proxy names: each distinct name has a 16-bit number, which a backend's key contains.
 * Thread-safe.
 */
#ifndef LBL_BASE_INTERN_H
#define LBL_BASE_INTERN_H

#include <stddef.h>
#include <stdint.h>

struct lbl_intern;

/* Create a set that contains only "overflow", number 0. Returns NULL if memory is exhausted. */
struct lbl_intern *lbl_intern_new(void);
void lbl_intern_free(struct lbl_intern *names);

/*
 * Return the number of a name of `len` bytes, added if new: 1 to 65535; or 0, the number of
 * "overflow", if all are in use. -ENOMEM.
 */
int lbl_intern_insert(struct lbl_intern *names, const char *text, size_t len);

/* Return the number of a name, or -ENOENT. */
int lbl_intern_find(struct lbl_intern *names, const char *text, size_t len);

/*
 * Return the text of a number, not terminated, and its length in `*len`; NULL if the number is
 * unknown. The text lives as long as the set.
 */
const char *lbl_intern_text(struct lbl_intern *names, uint16_t number, size_t *len);

#endif
