// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel/netns.h"

int lbl_netns_current(void)
{
	int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int lbl_netns_cookie(uint64_t *ret)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), err;
	socklen_t bytes = sizeof(*ret);

	if (fd < 0)
		return -errno;
	err = getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, ret, &bytes) ? -errno : 0;
	close(fd);
	return err;
}

/* Entering a namespace takes CAP_SYS_ADMIN, even if it is the one where the thread is. */
static int enter(int netns, int current)
{
	struct stat a, b;

	if (!fstat(netns, &a) && !fstat(current, &b) && a.st_dev == b.st_dev &&
	    a.st_ino == b.st_ino)
		return 0;
	return setns(netns, CLONE_NEWNET);
}

int lbl_netns_enter(int netns)
{
	int home = lbl_netns_current(), err;

	if (home >= 0 && netns >= 0 && enter(netns, home)) {
		err = -errno;
		close(home);
		return err;
	}
	return home;
}

void lbl_netns_leave(int home)
{
	int away = lbl_netns_current();

	if (enter(home, away))
		abort();
	if (away >= 0)
		close(away);
	close(home);
}
