/* SPDX-License-Identifier: MIT */
/* Taking records off a ring. */
#ifndef LBL_STREAM_DRAIN_H
#define LBL_STREAM_DRAIN_H

struct lbl_stream;

/* Hand all that is in the ring now to all who are told, in the caller's thread. */
void lbl_drain(struct lbl_stream *stream);

#endif
