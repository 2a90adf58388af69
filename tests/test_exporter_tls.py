"""TLS, certificates of clients, and what becomes of both when files change."""

from __future__ import annotations

import http.client
import ssl
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from lblatency.exporter import _watch, server
from tests.support.certificates import Authority, replace
from tests.support.rig import wait_until
from tests.support.web import Running, ask, exporter, is_closed, many_backends

if TYPE_CHECKING:
    from pathlib import Path

TLS = "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n"
MUTUAL = f"{TLS}  client_ca_file: ca.pem\n  client_auth_type: RequireAndVerifyClientCert\n"
GOOD = "lblatency_web_config_last_reload_successful"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """With a certificate for the server."""
    return Authority(tmp_path)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The file, with TLS."""
    path = tmp_path / "web.yml"
    path.write_text(TLS)
    return path


def serial(running: Running, client: ssl.SSLContext) -> str:
    """Which certificate the server shows."""
    connection = running.connect(client)
    connection.connect()
    assert isinstance(connection.sock, ssl.SSLSocket)
    certificate = connection.sock.getpeercert()
    assert certificate is not None
    found = str(certificate["serialNumber"])
    connection.close()
    return found


def value(running: Running, name: str, client: ssl.SSLContext | None = None) -> float:
    """A sample of a scrape."""
    lines = running.get(context=client).body.decode().splitlines()
    (found,) = [line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")]
    return float(found)


def test_tls_is_spoken_and_nothing_else(authority: Authority, config: Path) -> None:
    """A plain request gets no answer; a scrape by TLS gets all of it."""
    with exporter(many_backends(5000), config) as running:
        answer = running.get(context=authority.client())
        assert answer.status == 200
        assert len(answer.body) > 5_000_000
        assert answer.body.endswith(b"\n")
        assert b"HTTP" not in running.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        with pytest.raises(ssl.SSLCertVerificationError):
            running.get(context=ssl.create_default_context())
        assert running.get(context=authority.client()).status == 200
    assert running.told == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions_are_those_of_the_file(
    authority: Authority, config: Path, version: ssl.TLSVersion
) -> None:
    """1.2 is refused if 1.3 is the lowest."""
    config.write_text(f"{TLS}  min_version: TLS13\n")
    client = authority.client()
    client.maximum_version = version
    with exporter(config_file=config) as running:
        if version == ssl.TLSVersion.TLSv1_3:
            assert running.get(context=client).status == 200
        else:
            with pytest.raises(ssl.SSLError):
                running.get(context=client)


@pytest.mark.parametrize(("auth", "stranger_may"), [
    ("RequireAndVerifyClientCert", False), ("VerifyClientCertIfGiven", True),
])  # fmt: skip
def test_clients_are_verified(
    authority: Authority, config: Path, auth: str, stranger_may: bool, tmp_path: Path
) -> None:
    """By the authority that the file names; a certificate of another is none."""
    config.write_text(MUTUAL.replace("RequireAndVerifyClientCert", auth))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    forger = authority.client()
    Authority(elsewhere).ca.issue_cert("prometheus").configure_cert(forger)
    with exporter(config_file=config) as running:
        assert running.get(context=authority.client("prometheus")).status == 200
        with pytest.raises((ssl.SSLError, ConnectionError)):
            running.get(context=forger)
        if stranger_may:
            assert running.get(context=authority.client()).status == 200
        else:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                running.get(context=authority.client())
    assert running.told == []


@pytest.mark.parametrize("name", ["scraper.example", "10.1.2.3", "2001:db8::1", "a@example.org"])
def test_only_allowed_names_may(authority: Authority, config: Path, name: str) -> None:
    """A verified client with another name gets 403, whatever kind of name it is."""
    config.write_text(f"{MUTUAL}  client_allowed_sans: [nobody, {name!r}]\n")
    with exporter(config_file=config) as running:
        assert running.get(context=authority.client("x.example", name)).status == 200
        refused = running.get(context=authority.client("other.example"))
    assert refused.status == 403
    assert refused.body.startswith(b"Forbidden: no name in the client's certificate")


def test_a_new_certificate_is_taken_up(authority: Authority, config: Path) -> None:
    """Also one alone, without a change of the file; connections that there are stay."""
    with exporter(config_file=config) as running:
        client = authority.client()
        kept = running.connect(client)
        before = serial(running, client)
        assert ask(kept, "/-/healthy").status == 200
        sock = kept.sock
        authority.renew()
        wait_until(lambda: serial(running, client) != before, "the new certificate")
        assert ask(kept, "/-/healthy").status == 200
        assert kept.sock is sock
        kept.close()
    assert running.told[-1] == f"{config} is read again"


def test_no_request_is_lost_while_files_change(authority: Authority, config: Path) -> None:
    """TLS with and without certificates of clients, headers and certificates, ten times over."""
    client = authority.client("prometheus")
    stop = threading.Event()
    statuses: list[int] = []
    errors: list[BaseException] = []

    def scrape() -> None:
        while not stop.is_set():
            try:
                statuses.append(running.get(context=client).status)
            except (OSError, http.client.HTTPException) as error:
                errors.append(error)

    with exporter(many_backends(200), config) as running:
        threads = [threading.Thread(target=scrape) for _ in range(3)]
        for each in threads:
            each.start()
        for turn in range(10):
            count = len(running.told)
            authority.renew()
            headers = f"http_server_config: {{headers: {{X-XSS-Protection: '{turn}'}}}}\n"
            replace(config, (MUTUAL if turn % 2 else TLS) + headers)
            wait_until(lambda: len(running.told) > count, "the change")  # noqa: B023
            wait_until(
                lambda: running.get(context=client).headers.get("x-xss-protection") == str(turn),  # noqa: B023
                "the header",
            )
        stop.set()
        for each in threads:
            each.join()
    assert errors == []
    assert set(statuses) == {200}
    assert len(statuses) > 30


@pytest.mark.parametrize("path", ["web.yml", "cert.pem", "key.pem"])
@pytest.mark.parametrize("broken", ["{", None])
def test_a_broken_file_changes_nothing(
    authority: Authority, config: Path, path: str, broken: str | None
) -> None:
    """It is told once, and by a metric, until it is mended."""
    client = authority.client()
    file = config.with_name(path)
    with exporter(config_file=config) as running:
        assert value(running, GOOD, client) == 1
        since = value(running, GOOD.replace("_successful", "_success_timestamp_seconds"), client)
        good = file.read_bytes()
        if broken is None:
            file.unlink()
        else:
            replace(file, broken)
        wait_until(lambda: value(running, GOOD, client) == 0, "the metric")
        (line,) = running.told
        assert line.endswith("the web configuration that was there goes on")
        assert str(file if broken is None else config) in line
        replace(file, good)
        wait_until(lambda: value(running, GOOD, client) == 1, "its mending")
        later = value(running, GOOD.replace("_successful", "_success_timestamp_seconds"), client)
        assert later > since
    assert running.told[1:] == [f"{config} is read again"]


def test_tls_may_come_and_go(authority: Authority, config: Path) -> None:
    """Each connection speaks what the file says when it comes."""
    config.write_text("")
    client = authority.client()
    with exporter(config_file=config) as running:
        assert running.get().status == 200
        replace(config, TLS)
        wait_until(lambda: running.told, "TLS")
        assert running.get(context=client).status == 200
        replace(config, "# none\n")
        wait_until(lambda: len(running.told) > 1, "no TLS")
        assert running.get().status == 200


def test_silent_clients_hold_up_nobody(
    authority: Authority, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such that never begin, or stop within, their greeting; their time ends, too."""
    monkeypatch.setattr(server, "HEAD_S", 2.0)
    with exporter(config_file=config) as running, ExitStack() as open_ones:
        socks = [open_ones.enter_context(running.raw()) for _ in range(100)]
        for sock in socks[::2]:
            sock.sendall(bytes.fromhex("1603010200010001fc0303"))
        for _ in range(5):
            assert running.get(context=authority.client()).status == 200
        for sock in socks:
            assert sock.recv(1) == b""
    assert running.told == []


def test_clients_that_never_read_are_given_up(
    authority: Authority, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under TLS, too; the server's end comes in order nevertheless."""
    monkeypatch.setattr(_watch, "WRITE_S", 1.0)
    client = authority.client()
    with exporter(many_backends(5000), config) as running, ExitStack() as open_ones:
        socks = []
        for _ in range(10):
            raw = open_ones.enter_context(running.raw(buffer=4096))
            socks.append(client.wrap_socket(raw, server_hostname="127.0.0.1"))
            open_ones.enter_context(socks[-1])
            socks[-1].sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: all(map(is_closed, socks)), "their ends")
        assert running.get(context=client).status == 200
    assert running.told == []
