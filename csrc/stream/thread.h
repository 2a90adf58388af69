/* SPDX-License-Identifier: MIT */
/*
 * A stream's thread, from its opening to its end: it holds the claim, drains the ring while there
 * are sinks, follows the pin, and only it gives the stream another ring and other counters.
 */
#ifndef LBL_STREAM_THREAD_H
#define LBL_STREAM_THREAD_H

#include "stream/stream.h"

/*
 * Start the thread, which claims the ring. -EBUSY if another thread or process has claimed it:
 * `holder` says which; -EAGAIN if no thread can be made, or another -errno.
 */
int lbl_stream_start(struct lbl_stream *stream, struct lbl_holder *holder);

/* Stop and join the thread, if it runs; the caller holds `control` or the last reference. */
void lbl_stream_stop(struct lbl_stream *stream);

#endif
