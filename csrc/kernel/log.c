// SPDX-License-Identifier: MIT
#include <bpf/libbpf.h>
#include <stdio.h>
#include <string.h>

#include "kernel/log.h"

static _Thread_local char text[4096];
static _Thread_local size_t used;
static _Thread_local bool listening;
static libbpf_print_fn_t others; /* who listened before us */
static int blocks; /* in all threads */

/* Keep the end: with a verifier's log, that is where the reason stands. */
static void keep(const char *line, size_t length)
{
	if (used + length >= sizeof(text)) {
		size_t gone = used + length + 1 - sizeof(text);

		memmove(text, text + gone, used - gone);
		used -= gone;
	}
	memcpy(text + used, line, length);
	used += length;
	text[used] = '\0';
}

/*
 * libbpf's log has one destination per process: this one, while any thread is in a block. It passes
 * on what libbpf says in the other threads. Without a lock, which a child of fork() could find
 * taken: if one thread's last block ends just as another's begins, that one's words go to others.
 */
__attribute__((format(printf, 2, 0))) static int print(enum libbpf_print_level level,
						       const char *format, va_list args)
{
	libbpf_print_fn_t other = __atomic_load_n(&others, __ATOMIC_RELAXED);
	char line[2048];
	int written;

	if (!listening)
		return other ? other(level, format, args) : 0;
	if (level == LIBBPF_DEBUG)
		return 0;
	written = vsnprintf(line, sizeof(line), format, args);
	if (written > 0)
		keep(line, (size_t)written < sizeof(line) ? (size_t)written : sizeof(line) - 1);
	return 0;
}

bool lbl_log_begin(void)
{
	libbpf_print_fn_t before;
	bool outer = listening;

	__atomic_add_fetch(&blocks, 1, __ATOMIC_ACQ_REL);
	before = libbpf_set_print(print);
	if (before != print)
		__atomic_store_n(&others, before, __ATOMIC_RELAXED);
	used = 0;
	text[0] = '\0';
	listening = true;
	return outer;
}

void lbl_log_end(const bool *outer)
{
	listening = *outer;
	if (!__atomic_sub_fetch(&blocks, 1, __ATOMIC_ACQ_REL))
		libbpf_set_print(__atomic_load_n(&others, __ATOMIC_RELAXED));
}

const char *lbl_log_text(void)
{
	return text;
}

int lbl_libbpf_version(void)
{
	return (int)(libbpf_major_version() * 1000 + libbpf_minor_version());
}
