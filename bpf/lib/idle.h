/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* After how long without a packet a connection has ended, by its state. Shared with user space. */
#ifndef LBL_IDLE_H
#define LBL_IDLE_H

#include "lbl_abi.h"

/* cdef: begin */
struct lbl_idle {
	__u64 half_open_ns; /* the handshake is incomplete: a failed connect */
	__u64 closing_ns; /* one side has sent its FIN */
	__u64 idle_ns; /* any other TCP connection */
	__u64 udp_idle_ns;
};
/* cdef: end */

#endif
