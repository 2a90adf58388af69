"""Scrapes over HTTP: beside another server, of very many backends, and beside bad clients."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import trustme

from ..contenders.exporters import OURS, THEIRS, Exporter, running
from ..harness import interleave
from ..replay import Publish

GZIP = "Accept-Encoding: gzip"
OPENMETRICS = "Accept: application/openmetrics-text; version=1.0.0"
CASES = {"text": (), "text, gzip": (GZIP,)}
MANY = {"text, gzip": (GZIP,), "OpenMetrics, gzip": (GZIP, OPENMETRICS)}
ALONE = "nobody else"
BAD_CLIENTS = {"200 clients that never read": True, "200 silent clients": False}
_BAD, _ROUNDS = 200, 100


def _ns(exporter: Exporter, headers: tuple[str, ...], _number: int) -> float:
    return exporter.scrape(*headers)[0]


Measured = tuple[Mapping[str, list[float]], Mapping[str, dict[str, float]]]


def _measure(exporters: Mapping[str, Exporter], headers: tuple[str, ...], rounds: int) -> Measured:
    """Ns of scrapes in turn, and bytes and memory of each server."""
    figures = {}
    for name, each in exporters.items():
        with each.added_mib() as added:
            _, count = each.scrape(*headers)
            each.scrape(*headers)
        figures[name] = {"added_mib": added[0], "mb": count / 1e6}
    turns: dict[str, Callable[[int], float | None]] = {
        name: partial(_ns, each, headers) for name, each in exporters.items()
    }
    return interleave(turns, rounds, warmup=0), figures


@pytest.fixture(scope="module")
def beside(rounds: int, smoke: bool) -> Mapping[str, Measured]:
    """Both servers with the same backends, in all cases."""
    measured = {}
    for case, headers in CASES.items():  # new processes, since each case has a memory of its own
        with ExitStack() as stack:
            exporters = {
                name: stack.enter_context(running(name, 100 if smoke else 10_000))
                for name in (OURS, THEIRS)
            }
            measured[case] = _measure(exporters, headers, min(rounds, 11))
    return measured


@pytest.mark.parametrize("name", [OURS, THEIRS])
@pytest.mark.parametrize("case", CASES)
def test_scrape(case: str, name: str, beside: Mapping[str, Measured], publish: Publish) -> None:
    """A connection, a request, and all of the answer."""
    samples, figures = beside[case]
    publish("scrape", f"10000 backends, {case}", name, samples, **figures[name])


@pytest.mark.parametrize("case", MANY)
def test_many(case: str, rounds: int, smoke: bool, publish: Publish) -> None:
    """As many backends as a tracker has by default."""
    with running(OURS, 1000 if smoke else 100_000) as exporter:
        samples, figures = _measure({OURS: exporter}, MANY[case], min(rounds, 11))
    publish("scrape", f"100000 backends, {case}", OURS, samples, **figures[OURS])


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """The server's web configuration, and the context of a client."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        str(folder / "both.pem")
    )
    config = folder / "web.yml"
    config.write_text("tls_server_config: {cert_file: both.pem, key_file: both.pem}\n")
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return config, client


@pytest.mark.parametrize("clients", BAD_CLIENTS)
@pytest.mark.parametrize("speaks_tls", [False, True], ids=["plain", "tls"])
def test_bad_clients(
    clients: str,
    speaks_tls: bool,
    smoke: bool,
    tls: tuple[Path, ssl.SSLContext],
    publish: Publish,
) -> None:
    """Good scrapes of two servers in turn, of which one has bad clients."""
    config, client = tls if speaks_tls else (None, None)
    backends, count = (100, 10) if smoke else (10_000, _BAD)
    with (
        running(OURS, backends, config, client) as quiet,
        running(OURS, backends, config, client) as busy,
    ):
        quiet.scrape()
        busy.scrape()

        def beside_them(number: int) -> float:
            busy.attach(count, asks=BAD_CLIENTS[clients])
            return _ns(busy, (), number)

        with busy.added_mib() as added:
            turns: dict[str, Callable[[int], float | None]] = {
                ALONE: partial(_ns, quiet, ()),
                clients: beside_them,
            }
            samples = interleave(turns, 1 if smoke else _ROUNDS)
    p99 = {name: sorted(each)[-1 - len(each) // 100] for name, each in samples.items()}
    publish(
        "scrape beside others",
        "10000 backends, TLS" if speaks_tls else "10000 backends",
        clients,
        samples,
        p99_ms=p99[clients] / 1e6,
        p99_times_that_alone=p99[clients] / p99[ALONE],
        added_mib=added[0],
    )
