// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "render/otlp.h"
#include "render/protobuf.h"
#include "render/render.h"
#include "render/text.h"
#include "render/walk.h"

static int render_text(const struct lbl_page *page, const struct lbl_rendering *how,
		       struct lbl_buffer *out)
{
	struct lbl_text_writer text;
	int err;

	lbl_text_init(&text, out, how->format == LBL_OPENMETRICS);
	err = lbl_walk(page, &text.writer);
	lbl_text_destroy(&text);
	return err;
}

static int render_protobuf(const struct lbl_page *page, const struct lbl_rendering *how,
			   struct lbl_buffer *out)
{
	struct lbl_protobuf_writer protobuf;
	int err;

	lbl_protobuf_init(&protobuf, out, how->schema);
	err = lbl_walk(page, &protobuf.writer);
	lbl_protobuf_destroy(&protobuf);
	return err;
}

static int render_otlp(const struct lbl_page *page, const struct lbl_rendering *how,
		       struct lbl_buffer *out)
{
	struct lbl_otlp_writer otlp;
	int err;

	lbl_otlp_init(&otlp, out, how->schema, how->resource, page->read_ns);
	err = lbl_walk(page, &otlp.writer);
	lbl_otlp_destroy(&otlp);
	return err;
}

int lbl_render(const struct lbl_page *page, const struct lbl_rendering *how, char **ret, size_t *n)
{
	static int (*const renderers[])(const struct lbl_page *, const struct lbl_rendering *,
					struct lbl_buffer *) = {
		[LBL_TEXT] = render_text,
		[LBL_OPENMETRICS] = render_text,
		[LBL_PROTOBUF] = render_protobuf,
		[LBL_OTLP] = render_otlp,
	};
	struct lbl_buffer out = { 0 };
	int err;

	if (how->schema < LBL_NATIVE_SCHEMA_MIN || how->schema > LBL_NATIVE_SCHEMA)
		return -EINVAL;
	err = renderers[how->format](page, how, &out);
	if (err) {
		lbl_buffer_release(&out);
		return err;
	}
	*ret = out.at;
	*n = out.n;
	return 0;
}

void lbl_free_bytes(char *bytes)
{
	free(bytes);
}
