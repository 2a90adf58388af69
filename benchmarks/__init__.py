"""How fast lblatency is, beside what people use instead: see README.md."""
