// SPDX-License-Identifier: MIT
#include <bpf/libbpf.h>
#include <stdio.h>
#include <string.h>

#include "kernel/log.h"

static _Thread_local char text[4096];
static _Thread_local size_t used;
static _Thread_local bool in_block;
static libbpf_print_fn_t previous; /* libbpf's print function before ours */
static int blocks; /* open blocks in all threads */

/* Keep the end of a long text: a verifier log ends with the reason. */
static void append(const char *line, size_t length)
{
	if (used + length >= sizeof(text)) {
		size_t excess = used + length + 1 - sizeof(text);

		memmove(text, text + excess, used - excess);
		used -= excess;
	}
	memcpy(text + used, line, length);
	used += length;
	text[used] = '\0';
}

/*
 * libbpf has one print function per process: this one, while any thread is in a block. It forwards
 * the messages of the other threads. There is no lock, which a child of fork() could find taken;
 * the cost is a race: if one thread ends its last block just as another begins one, the other's
 * messages may be forwarded.
 */
__attribute__((format(printf, 2, 0))) static int print(enum libbpf_print_level level,
						       const char *format, va_list args)
{
	libbpf_print_fn_t forward = __atomic_load_n(&previous, __ATOMIC_RELAXED);
	char line[2048];
	int written;

	if (!in_block)
		return forward ? forward(level, format, args) : 0;
	if (level == LIBBPF_DEBUG)
		return 0;
	written = vsnprintf(line, sizeof(line), format, args);
	if (written > 0)
		append(line, (size_t)written < sizeof(line) ? (size_t)written : sizeof(line) - 1);
	return 0;
}

bool lbl_log_begin(void)
{
	libbpf_print_fn_t before;
	bool outer = in_block;

	__atomic_add_fetch(&blocks, 1, __ATOMIC_ACQ_REL);
	before = libbpf_set_print(print);
	if (before != print)
		__atomic_store_n(&previous, before, __ATOMIC_RELAXED);
	used = 0;
	text[0] = '\0';
	in_block = true;
	return outer;
}

void lbl_log_end(const bool *outer)
{
	in_block = *outer;
	if (!__atomic_sub_fetch(&blocks, 1, __ATOMIC_ACQ_REL))
		libbpf_set_print(__atomic_load_n(&previous, __ATOMIC_RELAXED));
}

const char *lbl_log_text(void)
{
	return text;
}

int lbl_libbpf_version(void)
{
	return (int)(libbpf_major_version() * 1000 + libbpf_minor_version());
}
