/* SPDX-License-Identifier: MIT */
/*
 * A pair of TC programs at the interfaces of a network namespace that shell patterns name. Not
 * thread-safe. Functions return 0, or -errno.
 */
#ifndef LBL_SOURCE_INTERFACES_H
#define LBL_SOURCE_INTERFACES_H

#include <stdbool.h>
#include <stdint.h>

struct lbl_interfaces;

enum lbl_way { LBL_IN, LBL_OUT, LBL_WAYS };

/* For what a device's packets begin with: Ethernet headers, or those of IP. */
enum lbl_device { LBL_DEVICE_ETHERNET, LBL_DEVICE_IP, LBL_DEVICES };

/* The programs' fds. */
struct lbl_programs {
	int fds[LBL_DEVICES][LBL_WAYS];
};

/*
 * Make a set without interfaces, in the caller's namespace. The programs' fds stay the caller's. With
 * `only_links` nothing is attached that would go on without its fd and its pin.
 */
int lbl_interfaces_new(const struct lbl_programs *programs, bool only_links,
		       struct lbl_interfaces **ret);

/* Detach from all, but for links that are pinned. NULL is legal. */
void lbl_interfaces_free(struct lbl_interfaces *interfaces);

/*
 * Go on with a link of an earlier set in the same namespace; the fd is duplicated. -ESTALE if its
 * interface has gone, -EMEDIUMTYPE if it is no link of these programs.
 */
int lbl_interfaces_take(struct lbl_interfaces *interfaces, int link_fd);

/*
 * Add a pattern. Devices whose packets begin neither way are left out. Without a wildcard, -ENODEV if
 * there is no such interface, and -EPFNOSUPPORT for such a device. Aborts the process if the thread
 * cannot return to its own namespace, as lbl_interfaces_follow() does.
 */
int lbl_interfaces_watch(struct lbl_interfaces *interfaces, const char *pattern);

/*
 * Detach from what has gone or has no pattern, and attach to what has come. All are tried; returns 0
 * or the first error. -EOPNOTSUPP if the kernel has no links and nothing else may be attached.
 */
int lbl_interfaces_follow(struct lbl_interfaces *interfaces);

uint32_t lbl_interfaces_count(const struct lbl_interfaces *interfaces);

/* Return the fd of a link, of lbl_way and of the i-th interface, and its id; or -ENOENT. */
int lbl_interfaces_link(const struct lbl_interfaces *interfaces, uint32_t i, enum lbl_way way,
			uint32_t *id);

#endif
