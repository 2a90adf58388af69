// SPDX-License-Identifier: MIT
#include <bpf/bpf.h>
#include <errno.h>

#include "source/networks.h"

int lbl_networks_put(int fd, const struct lbl_network *network,
		     const struct lbl_port_ranges *ranges)
{
	if (!ranges->n || ranges->n > LBL_PORT_RANGES)
		return -EINVAL;
	return bpf_map_update_elem(fd, network, ranges, BPF_ANY) ? -errno : 0;
}
