"""`lblatency demo`: a load balancer, backends and clients of our own, measured for real.

The command is `lblatency.demo.run.run`. Nothing is imported here, for the workers' sake: they are
processes of their own and need little of it.
"""

from __future__ import annotations

__all__: list[str] = []
