// SPDX-License-Identifier: MIT
#include "kernel/fill.h"
#include "source/networks.h"

int lbl_networks_set(int fd, const struct lbl_network_rule *rules, size_t n)
{
	return LBL_MAP_FILL(fd, rules, n);
}
