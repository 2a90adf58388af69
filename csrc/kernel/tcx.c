// SPDX-License-Identifier: MIT
#include <bpf/bpf.h>
#include <errno.h>

#include "kernel/tcx.h"

/* Of enums bpf_link_type and bpf_attach_type and bpf_link_create(), which older headers lack. */
enum { LINK_TYPE_TCX = 11, TCX_INGRESS = 46, TCX_EGRESS = 47, BEFORE = 1 << 3 };

/* The first part of struct bpf_link_info, as it is for such links. */
struct link_info {
	__u32 type, id, prog_id, pad;
	__u32 ifindex, attach_type;
};

int lbl_tcx_attach(int ifindex, enum bpf_tc_attach_point point, int prog_fd)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = BEFORE);
	int type = point == BPF_TC_INGRESS ? TCX_INGRESS : TCX_EGRESS;
	int fd = bpf_link_create(prog_fd, ifindex, (enum bpf_attach_type)type, &opts);

	return fd < 0 ? -errno : fd;
}

int lbl_tcx_info(int fd, struct lbl_tcx_info *ret)
{
	struct link_info info = { 0 };
	__u32 bytes = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &bytes))
		return -errno;
	if (info.type != LINK_TYPE_TCX || bytes != sizeof(info))
		return -EMEDIUMTYPE;
	*ret = (struct lbl_tcx_info){
		.id = info.id,
		.prog_id = info.prog_id,
		.ifindex = (int)info.ifindex,
		.point = info.attach_type == TCX_INGRESS ? BPF_TC_INGRESS : BPF_TC_EGRESS,
	};
	return 0;
}
