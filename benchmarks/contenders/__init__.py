"""Who is measured: lblatency, the floors that nobody gets below, and what people use instead."""
