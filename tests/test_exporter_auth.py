"""Users and passwords, rate limits and headers, from the file of `--web.config.file`."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from typing import TYPE_CHECKING

import bcrypt
import pytest

from lblatency.exporter import _auth
from tests.support.certificates import replace
from tests.support.rig import wait_until
from tests.support.web import Answer, Running, exporter

if TYPE_CHECKING:
    from pathlib import Path


def hashed(password: bytes, kind: bytes = b"$2b$") -> str:
    """A cheap hash."""
    return bcrypt.hashpw(password, bcrypt.gensalt(4)).replace(b"$2b$", kind).decode()


USERS = f"basic_auth_users:\n  alice: {hashed(b'secret')}\n  bob: {hashed(b'x' * 72, b'$2y$')}\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The file, with two users."""
    path = tmp_path / "web.yml"
    path.write_text(USERS)
    return path


def get_as(running: Running, user: bytes, password: bytes, path: str = "/metrics") -> Answer:
    """Ask as somebody."""
    coded = base64.b64encode(user + b":" + password).decode()
    return running.get(path, Authorization=f"Basic {coded}")


@pytest.mark.parametrize(
    ("user", "password", "status"),
    [
        (b"alice", b"secret", 200),
        (b"bob", b"x" * 72, 200),
        (b"bob", b"x" * 73, 401),
        (b"alice", b"x" * 72, 401),
        (b"bob", b"secret", 401),
        (b"alice", b"", 401),
        (b"", b"secret", 401),
        (b"eve", b"secret", 401),  # the first user's
        (b"alice\0", b"secret", 401),
        (b"alice", b"secret\0", 401),
        (b"\xff\xfe", b"\xff", 401),
        (b"alice", b"secret" * 10_000, 400),  # no head is that long
    ],
)
def test_users_have_passwords(config: Path, user: bytes, password: bytes, status: int) -> None:
    """Nobody else sees anything, a second time neither."""
    with exporter(config_file=config) as running:
        for _ in range(2):
            answer = get_as(running, user, password)
            assert answer.status == status
            if status == 401:
                assert answer.headers["www-authenticate"] == "Basic"
                assert answer.body == b"Unauthorized: a user and a password are needed\n"
    assert running.told == []


@pytest.mark.parametrize(
    "header",
    ["", "Basic", "Basic ", "Basic !", "Basic \xff", "Bearer YWxpY2U6c2VjcmV0", "Basic YWxpY2U=",
     "basic YWxpY2U6c2VjcmV0 x", "YWxpY2U6c2VjcmV0"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/metrics", "/", "/-/ready", "/nothing"])
def test_all_paths_need_a_good_header(config: Path, header: str, path: str) -> None:
    """401, whether there is anything at the path or not."""
    with exporter(config_file=config) as running:
        assert running.get(path, Authorization=header).status == 401
        assert get_as(running, b"alice", b"secret", path).status in (200, 404)


def test_each_verdict_is_found_once(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Good or wrong; an unknown user costs what a known one does. A new hash is a new verdict."""
    checks: list[bytes] = []
    matches = _auth._matches

    def count(password: bytes, expected: bytes) -> bool:
        checks.append(password)
        return matches(password, expected)

    monkeypatch.setattr(_auth, "_matches", count)
    with exporter(config_file=config) as running:
        for _ in range(3):
            assert get_as(running, b"alice", b"secret").status == 200
            assert get_as(running, b"alice", b"wrong").status == 401
            assert get_as(running, b"eve", b"wrong").status == 401
        assert checks == [b"secret", b"wrong", b"wrong"]
        replace(config, USERS + "http_server_config: {http2: true}\n")
        wait_until(lambda: running.told, "another file with the same users")
        assert get_as(running, b"alice", b"secret").status == 200
        assert len(checks) == 3
        replace(config, f"basic_auth_users: {{alice: {hashed(b'new')}}}\n")
        wait_until(lambda: len(running.told) > 1, "another password")
        assert get_as(running, b"alice", b"secret").status == 401
        assert get_as(running, b"alice", b"new").status == 200


def test_guessing_does_not_hold_up_those_who_are_known(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a wrong password is checked, a known user is served; wrong ones do not pile up."""
    opened = threading.Event()
    monkeypatch.setattr(_auth, "_WRONG_MAX", 3)
    with exporter(config_file=config) as running:
        assert get_as(running, b"alice", b"secret").status == 200
        for i in range(6):
            get_as(running, b"alice", b"wrong %d" % i)
        monkeypatch.setattr(_auth, "_matches", lambda *_: opened.wait(20) and False)
        guessing = threading.Thread(target=get_as, args=(running, b"alice", b"guess"))
        guessing.start()
        for _ in range(3):
            assert get_as(running, b"alice", b"secret").status == 200
        assert guessing.is_alive()
        opened.set()
        guessing.join()


def test_no_password_stays_in_memory() -> None:
    """What is remembered is an HMAC."""
    auth = _auth.BasicAuth({"alice": hashed(b"secret")})
    for password, is_right in ((b"secret", True), (b"guessed", False)):
        header = "Basic " + base64.b64encode(b"alice:" + password).decode()
        assert asyncio.run(auth.allows(header)) == is_right
        assert password not in repr(vars(auth)).encode()
    assert len(auth._good) == len(auth._wrong) == 1


def test_requests_beyond_a_rate_are_refused(config: Path) -> None:
    """A burst, then one per interval; the same limit in another file goes on."""
    limit = "rate_limit: {interval: 1s, burst: 3}\n"
    config.write_text(limit)
    with exporter(config_file=config) as running:
        started = time.monotonic()
        statuses = [running.get("/-/healthy").status for _ in range(8)]
        waited = time.monotonic() - started
        assert 3 <= statuses.count(200) <= 3 + waited
        assert set(statuses) == {200, 429}
        refused = wait_until(
            lambda: (answer := running.get("/-/healthy")).status == 429 and answer, "a refusal"
        )
        assert refused.body == b"Too Many Requests: too many requests\n"
        replace(config, f"{limit}# again\n")
        wait_until(lambda: running.told, "another file")
        statuses = [running.get("/-/healthy").status for _ in range(5)]
        assert 429 in statuses
        replace(config, "# none\n")
        wait_until(lambda: len(running.told) > 1, "no limit")
        assert {running.get("/-/healthy").status for _ in range(20)} == {200}


@pytest.mark.parametrize("path", ["/metrics", "/", "/nothing"])
def test_headers_come_with_each_answer(config: Path, path: str) -> None:
    """Also with refusals; they go when the file says so."""
    config.write_text(
        f"{USERS}http_server_config:\n  headers:\n    X-Frame-Options: deny\n"
        "    Content-Security-Policy: default-src 'self'\n"
    )
    with exporter(config_file=config) as running:
        for answer in (running.get(path), get_as(running, b"alice", b"secret", path)):
            assert answer.headers["x-frame-options"] == "deny"
            assert answer.headers["content-security-policy"] == "default-src 'self'"
        replace(config, USERS)
        wait_until(lambda: "x-frame-options" not in running.get(path).headers, "no header")
