"""The table of backends in a terminal. What it needs comes with `lblatency[top]`."""
