// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* The same balancer with a ring per CPU: for tests/oracle. */
#define LBL_RINGS 256
#include "oracle.bpf.c"
