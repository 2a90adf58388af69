// SPDX-License-Identifier: MIT
#include <bpf/libbpf.h>

#include "kernel/log.h"

int lbl_libbpf_version(void)
{
	return (int)(libbpf_major_version() * 1000 + libbpf_minor_version());
}
