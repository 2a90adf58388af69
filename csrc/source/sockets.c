/* SPDX-License-Identifier: MIT */
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "kernel/counters.h"
#include "kernel/fill.h"
#include "kernel/log.h"
#include "kernel/maps.h"
#include "sockets.skel.h"
#include "source/sockets.h"

enum {
	RING,
	RING_COUNTERS,
	FILTER,
	COMMS,
	CGROUPS,
	NETWORKS,
	COUNTERS,
	ROWS,
	PROGRAMS, /* the maps end */
	LINKS = PROGRAMS + LBL_SOCKETS_PROGRAMS,
	FIND_OPEN = LINKS + LBL_SOCKETS_PROGRAMS, /* the link of an iterator */
	END_UNSEEN, /* a program that is run, not attached */
	FDS,
};

enum {
	N_ROWS = LBL_SOCKETS_BACKENDS + 1,
	ROWS_BYTES = N_ROWS * sizeof(struct lbl_sockets_row),
	REST = 200, /* times the CPU time of a look, before the next one */
};

_Static_assert((int)FDS == LBL_SOCKETS_FDS, "each fd can be pinned");

/* Maps by their names in the program. */
static const char *const names[FDS] = {
	[RING] = "lbl_events",
	[RING_COUNTERS] = "lbl_counters",
	[FILTER] = "filter",
	[COMMS] = "comms",
	[CGROUPS] = "cgroups",
	[NETWORKS] = "lbl_networks",
	[COUNTERS] = "counters",
	[ROWS] = "rows",
	[PROGRAMS + LBL_SOCKETS_STATE] = "program_state",
	[PROGRAMS + LBL_SOCKETS_STATE_AGAIN] = "program_state_again",
	[PROGRAMS + LBL_SOCKETS_FIRST_BYTE] = "program_first_byte",
	[LINKS + LBL_SOCKETS_STATE] = "link_state",
	[LINKS + LBL_SOCKETS_STATE_AGAIN] = "link_state_again",
	[LINKS + LBL_SOCKETS_FIRST_BYTE] = "link_first_byte",
	[FIND_OPEN] = "link_find_open",
	[END_UNSEEN] = "program_end_unseen",
};

/* The kernel keeps the rest alive for the links: the maps that only programs use. */
struct lbl_sockets {
	int fds[FDS]; /* -1 if there is none */
	struct lbl_sockets_row *rows; /* the map's own memory */
	uint64_t next_look_ns;
};

/* ---- rules ---- */

int lbl_sockets_set_rules(struct lbl_sockets *sockets, const struct lbl_sockets_rules *rules)
{
	struct lbl_sockets_filter filter = {
		.has_comms = rules->n_comms > 0,
		.has_cgroups = rules->n_cgroups > 0,
		.has_networks = rules->n_networks > 0,
	};
	uint32_t only = 0;
	int err;

	lbl_log_block();
	err = LBL_MAP_FILL(sockets->fds[COMMS], rules->comms, rules->n_comms);
	if (!err)
		err = LBL_MAP_FILL(sockets->fds[CGROUPS], rules->cgroups, rules->n_cgroups);
	if (!err)
		err = lbl_networks_set(sockets->fds[NETWORKS], rules->networks, rules->n_networks);
	if (!err && bpf_map_update_elem(sockets->fds[FILTER], &only, &filter, BPF_ANY))
		err = -errno;
	return err;
}

/* ---- load ---- */

static bool has_tracepoint(const char *btf_name)
{
	struct btf *btf = btf__load_vmlinux_btf();
	bool has = btf && btf__find_by_name_kind(btf, btf_name, BTF_KIND_TYPEDEF) > 0;

	btf__free(btf);
	return has;
}

static int load(struct sockets *skel, uint32_t ring_bytes, bool by_read)
{
	bool on_data = !by_read && has_tracepoint("btf_trace_sk_data_ready");
	int err;

	err = bpf_map__set_max_entries(skel->maps.lbl_events, ring_bytes);
	if (!err)
		err = bpf_program__set_autoload(skel->progs.on_data, on_data);
	if (!err)
		err = bpf_program__set_autoload(skel->progs.on_read, !on_data);
	skel->rodata->lbl_wakeup_bytes = ring_bytes / 4;
	return err ? err : sockets__load(skel);
}

/* Duplicate an fd, since the skeleton closes its own. */
static int keep(int fd, int *ret)
{
	*ret = fd < 0 ? fd : fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return *ret < 0 ? -errno : 0;
}

static int attach(const struct bpf_program *program, int *ret)
{
	struct bpf_link *link = bpf_program__attach(program);
	int err;

	if (!link)
		return -errno;
	err = keep(bpf_link__fd(link), ret);
	bpf_link__destroy(link);
	return err;
}

/* Attach the iterator over a map. */
static int attach_to_map(const struct bpf_program *iterator, const struct bpf_map *map, int *ret)
{
	union bpf_iter_link_info info = { .map.map_fd = (__u32)bpf_map__fd(map) };
	LIBBPF_OPTS(bpf_iter_attach_opts, opts, .link_info = &info, .link_info_len = sizeof(info));
	struct bpf_link *link = bpf_program__attach_iter(iterator, &opts);
	int err;

	if (!link)
		return -errno;
	err = keep(bpf_link__fd(link), ret);
	bpf_link__destroy(link);
	return err;
}

/* Run the iterator, which writes nothing, to its end. */
static int run(const struct bpf_program *iterator)
{
	struct bpf_link *link = bpf_program__attach(iterator);
	int fd, err = 0;
	ssize_t n;
	char none;

	if (!link)
		return -errno;
	fd = bpf_iter_create(bpf_link__fd(link));
	if (fd < 0) {
		err = -errno;
		goto out;
	}
	do
		n = read(fd, &none, sizeof(none));
	while (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)));
	if (n < 0)
		err = -errno;
	close(fd);
out:
	bpf_link__destroy(link);
	return err;
}

/* Map the rows, which programs go on counting. */
static int map_rows(struct lbl_sockets *sockets)
{
	void *rows =
		mmap(NULL, ROWS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, sockets->fds[ROWS], 0);

	if (rows == MAP_FAILED)
		return -errno;
	sockets->rows = rows;
	return 0;
}

static int start(struct lbl_sockets *sockets, const struct sockets *skel,
		 const struct lbl_sockets_rules *rules)
{
	const struct bpf_program *programs[LBL_SOCKETS_PROGRAMS] = {
		[LBL_SOCKETS_STATE] = skel->progs.on_state,
		[LBL_SOCKETS_STATE_AGAIN] = skel->progs.on_state_again,
		[LBL_SOCKETS_FIRST_BYTE] = bpf_program__autoload(skel->progs.on_data)
						   ? skel->progs.on_data
						   : skel->progs.on_read,
	};
	int err = 0, i;

	for (i = 0; i < PROGRAMS && !err; i++)
		err = keep(bpf_object__find_map_fd_by_name(skel->obj, names[i]), &sockets->fds[i]);
	for (i = 0; i < LBL_SOCKETS_PROGRAMS && !err; i++)
		err = keep(bpf_program__fd(programs[i]), &sockets->fds[PROGRAMS + i]);
	if (!err)
		err = keep(bpf_program__fd(skel->progs.end_unseen), &sockets->fds[END_UNSEEN]);
	if (!err)
		err = map_rows(sockets);
	if (!err)
		err = lbl_sockets_set_rules(sockets, rules);
	/* In this order: of programs at one tracepoint, the first attached runs first. */
	for (i = 0; i < LBL_SOCKETS_PROGRAMS && !err; i++)
		err = attach(programs[i], &sockets->fds[LINKS + i]);
	if (!err)
		err = attach_to_map(skel->progs.find_open, skel->maps.births,
				    &sockets->fds[FIND_OPEN]);
	return err ? err : run(skel->progs.list_older);
}

static struct lbl_sockets *new_sockets(void)
{
	struct lbl_sockets *sockets = calloc(1, sizeof(*sockets));

	if (sockets)
		memset(sockets->fds, 0xff, sizeof(sockets->fds)); /* -1 */
	return sockets;
}

int lbl_sockets_open(uint32_t ring_bytes, const struct lbl_sockets_rules *rules, bool by_read,
		     struct lbl_sockets **ret)
{
	struct lbl_sockets *sockets;
	struct sockets *skel;
	int err;

	lbl_log_block();
	if (ring_bytes < (uint32_t)getpagesize() || ring_bytes & (ring_bytes - 1))
		return -EINVAL;
	sockets = new_sockets();
	if (!sockets)
		return -ENOMEM;
	skel = sockets__open();
	err = skel ? load(skel, ring_bytes, by_read) : -errno;
	if (!err)
		err = start(sockets, skel, rules);
	sockets__destroy(skel);
	if (err) {
		lbl_sockets_free(sockets);
		return err;
	}
	*ret = sockets;
	return 0;
}

void lbl_sockets_free(struct lbl_sockets *sockets)
{
	int i;

	if (!sockets)
		return;
	for (i = FDS - 1; i >= 0; i--)
		lbl_close(sockets->fds[i]);
	if (sockets->rows)
		munmap(sockets->rows, ROWS_BYTES);
	free(sockets);
}

/* ---- pins ---- */

const char *lbl_sockets_fd_name(unsigned int which)
{
	return which < FDS ? names[which] : NULL;
}

int lbl_sockets_fd(const struct lbl_sockets *sockets, unsigned int which)
{
	return which < FDS ? sockets->fds[which] : -EINVAL;
}

/* Check that the maps have the sizes of ours: a file of a name may be anything. */
static int check_maps(const struct lbl_sockets *sockets)
{
	static const uint32_t value_bytes[PROGRAMS] = {
		[RING_COUNTERS] = sizeof(struct lbl_counters),
		[FILTER] = sizeof(struct lbl_sockets_filter),
		[COMMS] = sizeof(struct lbl_sockets_proxy),
		[CGROUPS] = sizeof(struct lbl_sockets_proxy),
		[NETWORKS] = sizeof(struct lbl_port_ranges),
		[COUNTERS] = sizeof(struct lbl_sockets_counters),
		[ROWS] = sizeof(struct lbl_sockets_row),
	};
	struct bpf_map_info info;
	int i, err;

	for (i = 0; i < PROGRAMS; i++) {
		err = lbl_map_info(sockets->fds[i], &info);
		if (err)
			return err;
		if (info.value_size != value_bytes[i] ||
		    strncmp(info.name, names[i], sizeof(info.name)))
			return -EMEDIUMTYPE;
	}
	return 0;
}

int lbl_sockets_adopt(const int *fds, const struct lbl_sockets_rules *rules,
		      struct lbl_sockets **ret)
{
	struct lbl_sockets *sockets = new_sockets();
	int err = 0, i;

	lbl_log_block();
	if (!sockets)
		return -ENOMEM;
	for (i = 0; i < FDS && !err; i++)
		err = keep(fds[i], &sockets->fds[i]);
	if (!err)
		err = check_maps(sockets);
	if (!err)
		err = map_rows(sockets);
	if (!err)
		err = lbl_sockets_set_rules(sockets, rules);
	if (err) {
		lbl_sockets_free(sockets);
		return err;
	}
	*ret = sockets;
	return 0;
}

/* ---- running ---- */

int lbl_sockets_ring_fd(const struct lbl_sockets *sockets)
{
	return sockets->fds[RING];
}

int lbl_sockets_counters_fd(const struct lbl_sockets *sockets)
{
	return sockets->fds[RING_COUNTERS];
}

int lbl_sockets_program_fd(const struct lbl_sockets *sockets, enum lbl_sockets_program which)
{
	return sockets->fds[PROGRAMS + (int)which];
}

void lbl_sockets_detach(struct lbl_sockets *sockets, enum lbl_sockets_program which)
{
	lbl_close(sockets->fds[LINKS + (int)which]);
	sockets->fds[LINKS + (int)which] = -1;
}

int lbl_sockets_read(const struct lbl_sockets *sockets, struct lbl_sockets_state *ret)
{
	struct lbl_sockets_state state;
	int i, err;

	lbl_log_block();
	err = lbl_counters_sum(sockets->fds[COUNTERS], (uint64_t *)&state.counters,
			       sizeof(state.counters) / sizeof(uint64_t));
	for (i = 0; i < LBL_SOCKETS_PROGRAMS && !err; i++) {
		struct bpf_prog_info info = { 0 };
		uint32_t bytes = sizeof(info);

		if (bpf_obj_get_info_by_fd(sockets->fds[PROGRAMS + i], &info, &bytes))
			err = -errno;
		state.skipped[i] = info.recursion_misses;
	}
	if (!err)
		*ret = state;
	return err;
}

/* ---- ends that no program saw ---- */

/* Take what is open off what is missing. -EAGAIN if there is too much for one go. */
static int find_open(const struct lbl_sockets *sockets)
{
	int fd = bpf_iter_create(sockets->fds[FIND_OPEN]), err = 0;
	char none;

	if (fd < 0)
		return -errno;
	/* A single read. Before a second one, the kernel may lose its place, and leave some out. */
	if (read(fd, &none, sizeof(none)) < 0)
		err = -errno;
	close(fd);
	return err;
}

/*
 * Leave in each row how many connections are missing: a limit from below, and exact while none of the
 * backend's connections begins or ends. One that began before the look and is alive at its end was at
 * its socket all the time, so it was found; and one that ended, whether it was found or not, has
 * counted as ended.
 */
static int look(struct lbl_sockets *sockets)
{
	struct lbl_sockets_row *row, *end = sockets->rows + N_ROWS;
	int err;

	for (row = sockets->rows; row < end; row++)
		row->missing = __atomic_load_n(&row->begun, __ATOMIC_ACQUIRE);
	err = find_open(sockets);
	for (row = sockets->rows; row < end && !err; row++) {
		row->missing -= __atomic_load_n(&row->ended, __ATOMIC_ACQUIRE);
		if ((int64_t)row->missing < 0)
			row->missing = 0;
	}
	return err;
}

static int end_unseen(const struct lbl_sockets *sockets, uint32_t id)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &id, .ctx_size_in = sizeof(id));

	/* What it returns does not matter: if the ring is full, the event counts as dropped. */
	return bpf_prog_test_run_opts(sockets->fds[END_UNSEEN], &opts) ? -errno : 0;
}

int64_t lbl_sockets_mend(struct lbl_sockets *sockets)
{
	uint64_t began_ns = lbl_cpu_ns();
	int64_t reported = 0;
	uint32_t id;
	int err;

	lbl_log_block();
	if (lbl_now_ns() < sockets->next_look_ns)
		return 0;
	err = look(sockets);
	for (id = 0; id < N_ROWS && !err; id++) {
		struct lbl_sockets_row *row = &sockets->rows[id];

		for (; row->missing && row->missed && !err; row->missing--, row->missed--) {
			err = end_unseen(sockets, id);
			reported += !err;
		}
		row->missed = row->missing;
	}
	sockets->next_look_ns = lbl_now_ns() + REST * (lbl_cpu_ns() - began_ns);
	if (err == -EAGAIN)
		return 0;
	return err ? err : reported;
}
