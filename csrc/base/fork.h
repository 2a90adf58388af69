/* SPDX-License-Identifier: MIT */
/* Handlers that keep locks and threads consistent over fork(). */
#ifndef LBL_BASE_FORK_H
#define LBL_BASE_FORK_H

#include <stdint.h>

/* Lock order. fork() takes locks by ascending rank, and threads nest them in the same order. */
enum lbl_fork_rank {
	LBL_FORK_TRACKER,
	LBL_FORK_LEDGER,
	LBL_FORK_SENDER, /* a source whose thread sends events */
	LBL_FORK_STREAM,
	LBL_FORK_COUNTED,
	LBL_FORK_SINK,
	LBL_FORK_SOURCE,
	LBL_FORK_INTERN,
};

/* When a handler is called: before the fork, and after it in the parent and in the child. */
enum lbl_fork_phase { LBL_FORK_PREPARE, LBL_FORK_PARENT, LBL_FORK_CHILD };

struct lbl_fork_entry {
	struct lbl_fork_entry *next;
	enum lbl_fork_rank rank;
	void (*handle)(struct lbl_fork_entry *entry, enum lbl_fork_phase phase);
};

/*
 * Call the entry's handler at each fork: lower ranks first, within a rank in the order of
 * registration. The caller owns the entry until lbl_fork_unregister(). Returns a serial number that
 * grows with each registration.
 */
uint64_t lbl_fork_register(struct lbl_fork_entry *entry);
void lbl_fork_unregister(struct lbl_fork_entry *entry);

#endif
