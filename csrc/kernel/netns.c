// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "kernel/netns.h"

int lbl_netns_current(void)
{
	int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int lbl_netns_enter(int netns)
{
	int home = lbl_netns_current(), err;

	if (home >= 0 && netns >= 0 && setns(netns, CLONE_NEWNET)) {
		err = -errno;
		close(home);
		return err;
	}
	return home;
}

void lbl_netns_leave(int home)
{
	if (setns(home, CLONE_NEWNET))
		abort();
	close(home);
}
