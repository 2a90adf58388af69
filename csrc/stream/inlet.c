// SPDX-License-Identifier: MIT
#include <bpf/bpf.h>
#include <fcntl.h>
#include <unistd.h>

#include "kernel/maps.h"
#include "stream/inlet.h"

static int map_ring(int fd, struct lbl_inlet *inlet)
{
	struct bpf_map_info info;
	int err = lbl_map_info(fd, &info);

	if (err)
		return err;
	if (info.type != BPF_MAP_TYPE_RINGBUF)
		return -EINVAL;
	inlet->map_id = info.id;
	inlet->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (inlet->fd < 0)
		return -errno;
	return lbl_ring_map(&inlet->ring, inlet->fd, info.max_entries);
}

static int open_counters(int fd, struct lbl_inlet *inlet)
{
	int err = fd < 0 ? 0 : lbl_counted_open(fd, &inlet->counters);

	return err == -EPERM || err == -EACCES ? 0 : err;
}

int lbl_inlet_open(int ring_fd, int counters_fd, struct lbl_inlet *ret)
{
	int err;

	*ret = (struct lbl_inlet){ .fd = -1 };
	err = map_ring(ring_fd, ret);
	if (!err)
		err = open_counters(counters_fd, ret);
	if (err)
		lbl_inlet_close(ret);
	return err;
}

int lbl_inlet_memory(uint32_t bytes, struct lbl_inlet *ret)
{
	*ret = (struct lbl_inlet){ .fd = -1 };
	return lbl_ring_memory(&ret->ring, bytes);
}

void lbl_inlet_close(struct lbl_inlet *inlet)
{
	lbl_ring_unmap(&inlet->ring);
	lbl_counted_unref(inlet->counters);
	lbl_close(inlet->fd);
	*inlet = (struct lbl_inlet){ .fd = -1 };
}
