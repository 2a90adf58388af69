/* SPDX-License-Identifier: MIT */
/* Fill the map lbl_networks of a source's programs: see bpf/lib/networks.h. */
#ifndef LBL_SOURCE_NETWORKS_H
#define LBL_SOURCE_NETWORKS_H

#include <stddef.h>

#include "../../bpf/lib/networks.h"

/* cdef: begin */
struct lbl_network_rule {
	struct lbl_network key;
	struct lbl_port_ranges value; /* also those of wider networks that contain this one */
};

/* Replace all rules. -E2BIG for more than LBL_NETWORKS, -EINVAL if a prefix is too long. */
int lbl_networks_set(int fd, const struct lbl_network_rule *rules, size_t n);
/* cdef: end */

#endif
