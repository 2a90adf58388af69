/* SPDX-License-Identifier: MIT */
/* What fork() must not tear apart. */
#ifndef LBL_BASE_FORK_H
#define LBL_BASE_FORK_H

/* Called for each registered object: before the fork, then after it in the parent or child. */
enum lbl_fork_phase { LBL_FORK_PREPARE, LBL_FORK_PARENT, LBL_FORK_CHILD };

struct lbl_fork_entry {
	struct lbl_fork_entry *next;
	int rank; /* objects of a lower rank are locked first */
	void (*handle)(struct lbl_fork_entry *entry, enum lbl_fork_phase phase);
};

void lbl_fork_register(struct lbl_fork_entry *entry);
void lbl_fork_unregister(struct lbl_fork_entry *entry);

#endif
