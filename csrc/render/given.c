// SPDX-License-Identifier: MIT
#include "render/given.h"

struct lbl_given_cursor lbl_given_begin(const struct lbl_given *given)
{
	return (struct lbl_given_cursor){ given->texts, given->lengths, given->numbers,
					  given->values };
}

static struct lbl_text next_text(struct lbl_given_cursor *cursor)
{
	struct lbl_text text = { cursor->text, *cursor->length++ };

	cursor->text += text.n;
	return text;
}

void lbl_given_family(struct lbl_given_cursor *cursor, struct lbl_given_family *ret)
{
	ret->head.name = next_text(cursor);
	ret->head.help = next_text(cursor);
	ret->head.unit = next_text(cursor);
	ret->head.type = *cursor->number++;
	ret->index = *cursor->number++;
	ret->n_samples = *cursor->number++;
}

void lbl_given_sample(struct lbl_given_cursor *cursor, struct lbl_label *labels,
		      struct lbl_point *ret)
{
	size_t i;

	ret->name = next_text(cursor);
	ret->labels = (struct lbl_labels){ labels, *cursor->number++ };
	for (i = 0; i < ret->labels.n; i++) {
		labels[i].name = next_text(cursor);
		labels[i].value = next_text(cursor);
	}
	ret->value = *cursor->value++;
	ret->timestamp = *cursor->value++;
	ret->bound = *cursor->value++;
	ret->started_ns = 0;
}
