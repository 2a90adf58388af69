/* SPDX-License-Identifier: MIT */
/* Proxy names as small numbers. */
#ifndef LBL_BASE_INTERN_H
#define LBL_BASE_INTERN_H

#include <stddef.h>
#include <stdint.h>

struct lbl_intern;

struct lbl_intern *lbl_intern_new(void);
void lbl_intern_free(struct lbl_intern *names);
int lbl_intern_insert(struct lbl_intern *names, const char *text, size_t len);
int lbl_intern_find(struct lbl_intern *names, const char *text, size_t len);
const char *lbl_intern_text(struct lbl_intern *names, uint16_t name, size_t *len);

#endif
