/* SPDX-License-Identifier: MIT */
/* What fork() must not tear apart. */
#ifndef LBL_BASE_FORK_H
#define LBL_BASE_FORK_H

#include <stdint.h>

/* The order in which fork() takes locks: the order in which threads nest them. */
enum lbl_fork_rank { LBL_FORK_TRACKER, LBL_FORK_STREAM, LBL_FORK_SINK, LBL_FORK_INTERN };

/* The phases that each registered object is called in: before the fork, then on either side. */
enum lbl_fork_phase { LBL_FORK_PREPARE, LBL_FORK_PARENT, LBL_FORK_CHILD };

struct lbl_fork_entry {
	struct lbl_fork_entry *next;
	enum lbl_fork_rank rank;
	void (*handle)(struct lbl_fork_entry *entry, enum lbl_fork_phase phase);
};

/*
 * Call the entry's handler at each fork: those of lower ranks first, and of one rank in the order
 * of registration. Returns a serial that rises with each registration.
 */
uint64_t lbl_fork_register(struct lbl_fork_entry *entry);
void lbl_fork_unregister(struct lbl_fork_entry *entry);

#endif
