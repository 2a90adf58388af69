// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "render/otlp.h"
#include "render/protobuf.h"
#include "render/render.h"
#include "render/text.h"
#include "render/walk.h"

struct lbl_render {
	struct lbl_buffer out;
	struct lbl_walk walk;
	bool taken; /* what is in `out` */
	bool ended;
	union {
		struct lbl_writer writer;
		struct lbl_text_writer text;
		struct lbl_protobuf_writer protobuf;
		struct lbl_otlp_writer otlp;
	};
};

static void init_writer(struct lbl_render *render, const struct lbl_rendering *how,
			uint64_t read_ns)
{
	switch (how->format) {
	case LBL_TEXT:
	case LBL_OPENMETRICS:
		lbl_text_init(&render->text, &render->out, how->format == LBL_OPENMETRICS);
		break;
	case LBL_PROTOBUF:
		lbl_protobuf_init(&render->protobuf, &render->out, how->schema);
		break;
	case LBL_OTLP:
		lbl_otlp_init(&render->otlp, &render->out, how->schema, how->resource, read_ns);
		break;
	}
}

int lbl_render_new(const struct lbl_page *page, const struct lbl_rendering *how,
		   struct lbl_render **ret)
{
	struct lbl_render *render;
	int err;

	if (how->schema < LBL_NATIVE_SCHEMA_MIN || how->schema > LBL_NATIVE_SCHEMA)
		return -EINVAL;
	render = calloc(1, sizeof(*render));
	if (!render)
		return -ENOMEM;
	init_writer(render, how, page->read_ns);
	err = lbl_walk_init(&render->walk, page, &render->writer);
	if (err)
		lbl_render_free(render);
	else
		*ret = render;
	return err;
}

void lbl_render_free(struct lbl_render *render)
{
	if (!render)
		return;
	lbl_walk_destroy(&render->walk);
	render->writer.ops->destroy(&render->writer);
	lbl_buffer_release(&render->out);
	free(render);
}

static bool is_settled(const struct lbl_render *render)
{
	switch (render->writer.ops->settled) {
	case LBL_ALWAYS:
		return true;
	case LBL_BETWEEN_FAMILIES:
		return !render->walk.in_family;
	}
	return false;
}

int lbl_render_next(struct lbl_render *render, size_t least, const char **ret, size_t *n)
{
	if (render->taken)
		render->out.n = 0;
	render->taken = true;
	while (!render->ended && (render->out.n < least || !is_settled(render)))
		render->ended = !lbl_walk_next(&render->walk);
	if (!render->ended && render->writer.ops->settle)
		render->writer.ops->settle(&render->writer);
	*ret = render->out.at;
	*n = render->out.n;
	return render->out.err;
}
