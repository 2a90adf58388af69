"""A real Prometheus scrapes the exporter, as an operator would let it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import bcrypt
import pytest

from tests.support.certificates import Authority, replace
from tests.support.prometheus import ask, ended, first_match
from tests.support.rig import wait_until
from tests.support.web import HOST, exporter, many_backends

if TYPE_CHECKING:
    from pathlib import Path

WEB = """\
tls_server_config:
  cert_file: cert.pem
  key_file: key.pem
  client_ca_file: ca.pem
  client_auth_type: RequireAndVerifyClientCert
  client_allowed_sans: [prometheus]
basic_auth_users: {{alice: {hashed}}}
"""
SCRAPES = """\
global: {{scrape_interval: 200ms}}
scrape_configs:
- job_name: ours
  scheme: https
  basic_auth: {{username: alice, password: secret}}
  tls_config: {{ca_file: ca.pem, cert_file: client.pem, key_file: client.pem}}
  static_configs: [{{targets: ['{target}']}}]
"""


@pytest.mark.parametrize("flags", [[], ["--enable-feature=native-histograms"]])
def test_prometheus_scrapes_by_tls_as_a_user(tmp_path: Path, flags: list[str]) -> None:
    """All counts arrive, in text or protobuf, and no scrape fails while certificates change."""
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus")
    authority = Authority(tmp_path)
    made = authority.ca.issue_cert("prometheus")
    made.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "client.pem"))
    web = tmp_path / "web.yml"
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    web.write_text(WEB.format(hashed=hashed))
    config = tmp_path / "prometheus.yml"
    with exporter(many_backends(300), web) as running:
        config.write_text(SCRAPES.format(target=f"{HOST}:{running.port}"))
        server = ["prometheus", f"--config.file={config}", "--web.listen-address=127.0.0.1:0",
                  f"--storage.tsdb.path={tmp_path / 'data'}", *flags]  # fmt: skip
        with ended(server) as prometheus:
            address = first_match(prometheus, r"address=(127\.0\.0\.1:[1-9]\d*)")

            def value(query: str) -> float | None:
                found = ask(address, query)
                return float(found[0]["value"][1]) if found else None

            name = "lb_backend_latency_seconds"
            count = f"histogram_count({name})" if flags else f"{name}_count"
            wait_until(lambda: value(f"sum({count})") == 300, "all counts", 30)
            for turn in range(3):
                authority.renew()
                replace(web, f"{WEB.format(hashed=hashed)}# {turn}\n")
                told = len(running.told)
                wait_until(lambda: len(running.told) > told, "the change")  # noqa: B023
                before = value("lblatency_scrape_duration_seconds_count") or 0
                wait_until(
                    lambda: (value("lblatency_scrape_duration_seconds_count") or 0) > before + 2,  # noqa: B023
                    "further scrapes",
                )
            assert value("min_over_time(up[1m])") == 1
