// SPDX-License-Identifier: MIT
/*
 * Capabilities belong to a thread, and only itself can give them up. So each is sent a signal, as
 * libc does for setuid(). Threads that start meanwhile have what the thread that starts them has.
 */
#include <dirent.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"
#include "kernel/privileges.h"

enum { WORDS = _LINUX_CAPABILITY_U32S_3, LOOK_US = 100 };

static const uint64_t WAIT_NS = 1000000000;

static uint64_t kept; /* written before any signal is sent */
static uint32_t answers;

static int read_of(pid_t tid, struct __user_cap_data_struct *ret)
{
	struct __user_cap_header_struct of = { _LINUX_CAPABILITY_VERSION_3, tid };

	return syscall(SYS_capget, &of, ret) ? -errno : 0;
}

static int give_up(void)
{
	struct __user_cap_header_struct own = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[WORDS];
	int err = read_of(0, data), i;

	if (err)
		return err;
	for (i = 0; i < WORDS; i++) {
		uint32_t mask = (uint32_t)(kept >> 32 * i);

		data[i].effective &= mask;
		data[i].permitted &= mask;
		data[i].inheritable &= mask;
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	return syscall(SYS_capset, &own, data) ? -errno : 0;
}

static void on_signal(int number)
{
	int saved = errno;

	(void)number;
	give_up();
	__atomic_add_fetch(&answers, 1, __ATOMIC_RELEASE);
	errno = saved;
}

/* Return 1 if the thread has more than is kept, 0 if not or if it has ended, or -errno. */
static int has_more(pid_t tid)
{
	struct __user_cap_data_struct data[WORDS];
	int err = read_of(tid, data), i;

	for (i = 0; i < WORDS && !err; i++)
		if ((data[i].permitted | data[i].inheritable) & ~(uint32_t)(kept >> 32 * i))
			return 1;
	return err == -ESRCH ? 0 : err;
}

/* Let the thread give up, and wait until it has or has ended. */
static int reach(pid_t tid)
{
	uint64_t until = lbl_now_ns() + WAIT_NS;
	uint32_t before = READ_ONCE(&answers);
	long rc = syscall(SYS_tgkill, getpid(), tid, SIGRTMAX);

	while (!rc && READ_ONCE(&answers) == before) {
		if (lbl_now_ns() > until)
			return -ETIMEDOUT;
		usleep(LOOK_US);
		rc = syscall(SYS_tgkill, getpid(), tid, 0);
	}
	if (rc && errno != ESRCH)
		return -errno;
	return has_more(tid) > 0 ? -EPERM : 0;
}

/*
 * Reach all other threads, or those that have more than is kept. Return 1 if there was one that had:
 * it may have started another.
 */
static int reach_all(bool also_those_without)
{
	DIR *threads = opendir("/proc/self/task");
	int found = 0, more, err = 0;
	struct dirent *each;

	if (!threads)
		return -errno;
	while (!err && (each = readdir(threads))) {
		pid_t tid = (pid_t)strtol(each->d_name, NULL, 10);

		if (!tid || tid == gettid()) /* "." and ".." */
			continue;
		more = has_more(tid);
		if (more > 0)
			found = 1;
		if (more > 0 || (!more && also_those_without))
			err = reach(tid);
		else
			err = more;
	}
	closedir(threads);
	return err ? err : found;
}

int lbl_privileges_keep(uint64_t keep)
{
	struct sigaction ours = { .sa_handler = on_signal, .sa_flags = SA_RESTART }, before;
	int rc;

	kept = keep;
	rc = give_up();
	if (rc)
		return rc;
	if (sigaction(SIGRTMAX, &ours, &before))
		return -errno;
	rc = reach_all(true);
	while (rc > 0)
		rc = reach_all(false);
	if (rc != -ETIMEDOUT) /* else a signal is still to come, and would end the process */
		sigaction(SIGRTMAX, &before, NULL);
	return rc;
}
