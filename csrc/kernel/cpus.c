// SPDX-License-Identifier: MIT
#include <bpf/bpf.h>
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/cpus.h"

enum { MASK_BYTES = 8192 }; /* for 65,536 CPUs; kernels have at most 8192 */

/*
 * The system call, unlike the function of libc, returns the bytes of the kernel's own CPU mask,
 * which has a bit for each possible CPU.
 */
int lbl_cpus_most(void)
{
	uint64_t mask[MASK_BYTES / sizeof(uint64_t)];
	long bytes = syscall(SYS_sched_getaffinity, 0, sizeof(mask), mask);

	return bytes < 0 ? -errno : (int)bytes * CHAR_BIT;
}

/* Fill the buffer with a word that no balancer can guess: what differs afterwards was written. */
int lbl_cpus_of(int fd, const void *key, size_t value_bytes)
{
	size_t words = value_bytes / sizeof(uint64_t), n, i;
	int most = lbl_cpus_most(), err = 0;
	uint64_t *values, unwritten;

	if (most < 0)
		return most;
	if (getrandom(&unwritten, sizeof(unwritten), 0) != sizeof(unwritten))
		return -errno;
	n = (size_t)most * words;
	values = malloc(n * sizeof(*values));
	if (!values)
		return -ENOMEM;
	for (i = 0; i < n; i++)
		values[i] = unwritten;
	if (bpf_map_lookup_elem(fd, key, values))
		err = -errno;
	while (!err && n && values[n - 1] == unwritten)
		n--;
	free(values);
	return err ? err : (int)((n + words - 1) / words);
}
