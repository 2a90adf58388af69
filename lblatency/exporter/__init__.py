"""The HTTP server of `lblatency serve`."""
