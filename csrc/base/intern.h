/* SPDX-License-Identifier: MIT */
/* Proxy names as small numbers. */
#ifndef LBL_BASE_INTERN_H
#define LBL_BASE_INTERN_H

#include <stddef.h>
#include <stdint.h>

struct lbl_names;

struct lbl_names *lbl_names_new(void);
void lbl_names_free(struct lbl_names *names);
int lbl_names_put(struct lbl_names *names, const char *text, size_t len);
int lbl_names_find(struct lbl_names *names, const char *text, size_t len);
const char *lbl_names_get(struct lbl_names *names, uint16_t name, size_t *len);

#endif
