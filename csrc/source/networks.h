/* SPDX-License-Identifier: MIT */
/* Fill the map lbl_networks of a source's programs: see bpf/lib/networks.h. */
#ifndef LBL_SOURCE_NETWORKS_H
#define LBL_SOURCE_NETWORKS_H

#include "../../bpf/lib/networks.h"

/* cdef: begin */
/*
 * Give a network its ranges of ports, instead of those that it had. -EINVAL if there are none or
 * too many, or the prefix is too long; -ENOSPC for more than LBL_NETWORKS networks.
 */
int lbl_networks_put(int fd, const struct lbl_network *network,
		     const struct lbl_port_ranges *ranges);
/* cdef: end */

#endif
