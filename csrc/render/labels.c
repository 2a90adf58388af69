// SPDX-License-Identifier: MIT
#include "render/labels.h"

void lbl_add_label(struct lbl_own_labels *labels, const char *name, struct lbl_text value)
{
	size_t i = labels->n++;

	for (; i && strcmp(labels->at[i - 1].name.at, name) > 0; i--)
		labels->at[i] = labels->at[i - 1];
	labels->at[i] = (struct lbl_label){ lbl_text_of(name), value };
}

/* Write an address like inet_ntop(), which takes long for IPv4. */
static struct lbl_text write_ip(char *to, const uint8_t *addr)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	char *end = to;
	int i;

	if (memcmp(addr, mapped, sizeof(mapped))) {
		inet_ntop(AF_INET6, addr, to, INET6_ADDRSTRLEN);
		return lbl_text_of(to);
	}
	for (i = 12; i < 16; i++) {
		if (i > 12)
			*end++ = '.';
		end = lbl_write_u64(end, addr[i]);
	}
	return (struct lbl_text){ to, (size_t)(end - to) };
}

void lbl_add_backend(struct lbl_own_labels *labels, const struct lbl_shown_tracker *shown,
		     const struct lbl_backend_snapshot *row)
{
	struct lbl_text name, ip, port = { "0", 1 };

	if (row->name || row->port == LBL_OVERFLOW) {
		name.at = lbl_tracker_name_text(shown->tracker, row->name, &name.n);
		ip = name;
	} else {
		name = ip = lbl_text_of("removed");
	}
	if (row->name) {
		ip = write_ip(labels->ip, row->addr);
		port.at = labels->port;
		port.n = (size_t)(lbl_write_u64(labels->port, row->port) - labels->port);
	}
	lbl_add_label(labels, "proxy_name", name);
	lbl_add_label(labels, "target_ip", ip);
	lbl_add_label(labels, "target_port", port);
}

void lbl_add_tracker(struct lbl_own_labels *labels, const struct lbl_shown_tracker *shown)
{
	if (shown->how.label)
		lbl_add_label(labels, "tracker",
			      (struct lbl_text){ shown->how.label, shown->how.label_bytes });
}
