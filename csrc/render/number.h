/* SPDX-License-Identifier: MIT */
/* Numbers in decimal, as Prometheus' text formats have them. All return the end of what they wrote. */
#ifndef LBL_RENDER_NUMBER_H
#define LBL_RENDER_NUMBER_H

#include "base/util.h"

/* Room for any number below, bytes. */
enum { LBL_NUMBER_MAX = 64 };

char *lbl_write_u64(char *to, uint64_t value);

/* Nanoseconds as seconds, exactly: "12.5", "3.0". */
char *lbl_write_seconds(char *to, lbl_u128 ns);

/* Nanoseconds as seconds, correctly rounded. */
double lbl_seconds(lbl_u128 ns);

/* The shortest form that reads back as the same double (of normal ones), like Go: "0.25", "1.0", "1.5e+06", "+Inf". */
char *lbl_write_double(char *to, double value);

#endif
