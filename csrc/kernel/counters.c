// SPDX-License-Identifier: MIT
#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/counters.h"
#include "kernel/cpus.h"

int lbl_counters_sum(int fd, uint64_t *sums, size_t count)
{
	int cpus = lbl_cpus_most(); /* the values of CPUs that there are not stay 0 */
	size_t bytes = count * sizeof(*sums), i;
	uint32_t only = 0;
	uint64_t *values;
	int err = 0;

	if (cpus < 0)
		return cpus;
	values = calloc((size_t)cpus, bytes);
	if (!values)
		return -ENOMEM;
	if (bpf_map_lookup_elem(fd, &only, values)) {
		err = -errno;
		goto out;
	}
	memset(sums, 0, bytes);
	for (i = 0; i < (size_t)cpus * count; i++)
		sums[i % count] += values[i];
out:
	free(values);
	return err;
}
