/* SPDX-License-Identifier: MIT */
/*
 * A counters map as this process has read it. Its sums never go down: if a loader sets the map to
 * zero, they go on from where they were. All streams of the process share one lbl_counted per map.
 */
#ifndef LBL_STREAM_COUNTED_H
#define LBL_STREAM_COUNTED_H

#include "lbl_abi.h"
#include "base/util.h"

struct lbl_counted;

struct lbl_counted_reading {
	struct lbl_counters sums; /* since the process opened the map, plus what it held then */
	uint32_t restarts; /* how often the map was found to have gone down */
	uint32_t users; /* streams of this process that consume a ring which it counts for */
};

/*
 * Open the per-CPU map of struct lbl_counters `fd`, which is duplicated, and take a reference. -EINVAL
 * if the map has another type, -EPERM if it cannot
 * be read, -ENOMEM, or another -errno.
 */
int lbl_counted_open(int fd, struct lbl_counted **ret);
/* NULL is legal for these, and the caller may hold any lock. */
struct lbl_counted *lbl_counted_ref(struct lbl_counted *counted);
void lbl_counted_unref(struct lbl_counted *counted);
/* Call as a stream begins to consume a ring, not before it has the claim; and as it ends. */
void lbl_counted_begin_use(struct lbl_counted *counted);
void lbl_counted_end_use(struct lbl_counted *counted);

/*
 * Read the map. The more often, the less is lost if a loader sets it to zero. Returns 0 or -errno.
 * In a child of fork(), the sums are those of the fork. Takes a lock of rank LBL_FORK_COUNTED.
 */
int lbl_counted_read(struct lbl_counted *counted, struct lbl_counted_reading *ret);

#endif
