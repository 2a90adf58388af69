"""The file of `--web.config.file`: Prometheus' own promtool gives the same verdict."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from lblatency.errors import LatencyError
from lblatency.exporter.web_config import Files, read_web_config
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path

HASH = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"
TLS = "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n"
CA = f"{TLS}  client_ca_file: ca.pem\n"
SANS = f"{CA}  client_auth_type: RequireAndVerifyClientCert\n  client_allowed_sans:"

# Both take these.
GOOD = {
    "nothing": "",
    "a comment": "# nothing\n",
    "tls": TLS,
    "tls in quotes": TLS.replace("cert.pem", '"cert.pem"'),
    "empty tls": "tls_server_config: {}\n",
    "null tls": "tls_server_config:\n",
    "clients verified": f"{CA}  client_auth_type: RequireAndVerifyClientCert\n",
    "clients verified if given": f"{CA}  client_auth_type: VerifyClientCertIfGiven\n",
    "clients asked": f"{TLS}  client_auth_type: RequestClientCert\n",
    "no clients": f"{TLS}  client_auth_type: NoClientCert\n",
    "versions": f"{TLS}  min_version: TLS12\n  max_version: TLS13\n",
    "old version": f"{TLS}  min_version: TLS10\n",
    "ciphers": f"{TLS}  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,"
    " TLS_AES_128_GCM_SHA256]\n",
    "all curves": f"{TLS}  curve_preferences: [CurveP256, CurveP384, CurveP521, X25519]\n",
    "one curve": f"{TLS}  curve_preferences: [CurveP256]\n",
    "server's ciphers": f"{TLS}  prefer_server_cipher_suites: no\n",
    "users": f"basic_auth_users:\n  alice: {HASH}\n  bob: {HASH}\n",
    "no users": "basic_auth_users: {}\n",
    "http2": "http_server_config:\n  http2: true\n",
    "headers": "http_server_config:\n  headers:\n    X-Frame-Options: deny\n"
    "    Strict-Transport-Security: max-age=1\n",
}
# Both refuse these, and we say this.
BAD = {
    "unknown key": ("x: 1\n", "unknown key x"),
    "unknown key within": (f"{TLS}  x: 1\n", "unknown key tls_server_config.x"),
    "key twice": (f"{TLS}  cert_file: cert.pem\n", ":4: 'cert_file' comes twice"),
    "no yaml": ("a: [\n", "expected"),
    "a list": ("- a\n", "the file must be a mapping"),
    "a plain password": ("basic_auth_users: {alice: secret}\n", "'alice' has is no bcrypt hash"),
    "no certificate": ("tls_server_config: {key_file: key.pem}\n", "needs cert or cert_file"),
    "no key": ("tls_server_config: {cert_file: cert.pem}\n", "needs key or key_file"),
    "certificate away": (TLS.replace("cert.pem", "none.pem"), "none.pem: No such file"),
    "key away": (TLS.replace("key.pem", "none.pem"), "none.pem: No such file"),
    "certificate is none": (TLS.replace("cert.pem", "web.yml"), "cannot be used"),
    "key of another": (TLS.replace("key.pem", "other.pem"), "KEY_VALUES_MISMATCH"),
    "authority away": (CA.replace("ca.pem", "none.pem"), "none.pem: No such file"),
    "authority for nothing": (CA, "client_ca needs a client_auth_type"),
    "only an authority": ("tls_server_config: {client_ca_file: ca.pem}\n", "needs cert"),
    "auth type": (f"{TLS}  client_auth_type: Maybe\n", "'Maybe' is not one of NoClientCert"),
    "version": (f"{TLS}  min_version: TLS9\n", "'TLS9' is not one of TLS10"),
    "cipher": (f"{TLS}  cipher_suites: [ROT13]\n", "'ROT13' is not one of"),
    "curve": (f"{TLS}  curve_preferences: [CurveP1]\n", "'CurveP1' is not one of"),
    "header": ("http_server_config: {headers: {X-Mine: a}}\n", "'X-Mine' is not one of"),
    "header's value": (
        "http_server_config: {headers: {X-Frame-Options: perhaps}}\n",
        "X-Frame-Options must be one of deny, sameorigin",
    ),
    "flag": ("http_server_config: {http2: perhaps}\n", "http2 must be true or false"),
    "text for a list": (f"{TLS}  curve_preferences: {{}}\n", "must be a list"),
}
# promtool 2.42 says otherwise of these.
ONLY_OURS_TAKES = {
    # They are younger than that promtool; 3.5 takes them.
    "names": f"{SANS} [example.org]\n",
    "rate limit": "rate_limit: {interval: 1m30.5s, burst: 7}\n",
    "rate limit in nanoseconds": "rate_limit: {interval: 1000000000, burst: 1}\n",
    "certificate in the file": "tls_server_config:\n  cert: |\n{cert}  key: |\n{key}",
}
ONLY_OURS_REFUSES = {
    # Python's ssl cannot take any certificate without verifying it, which would prove nothing.
    "any client": (f"{TLS}  client_auth_type: RequireAnyClientCert\n", "without verifying"),
    # It can be told one curve, or none.
    "two curves": (f"{TLS}  curve_preferences: [X25519, CurveP256]\n", "one curve, or all"),
    # Nobody could connect.
    "no version": (f"{TLS}  min_version: TLS13\n  max_version: TLS12\n", "is above max_version"),
    # Go takes the file, and then no client.
    "authority is none": (
        f"{CA.replace('ca.pem', 'web.yml')}  client_auth_type: RequireAndVerifyClientCert\n",
        "no authority in client_ca",
    ),
    # It would split the answer.
    "header of two lines": (
        'http_server_config: {headers: {Content-Security-Policy: "a\\r\\nb"}}\n',
        "has a character that no header may have",
    ),
    # Without forward secrecy; later versions of Go refuse it, too.
    "cipher of old": (
        f"{TLS}  cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]\n",
        "is not one of",
    ),
}
# Neither takes these; promtool 2.42 since it does not know the keys.
BAD_OF_TODAY = {
    "names for nothing": (f"{TLS}  client_allowed_sans: [a]\n", "needs RequireAndVerify"),
    "duration": ("rate_limit: {interval: soon}\n", "'soon' is no duration"),
    "burst": ("rate_limit: {interval: 1s, burst: much}\n", "burst must be a whole number"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a certificate, its key, another key, and an authority."""
    other = tmp_path / "other"
    other.mkdir()
    Authority(other)
    Authority(tmp_path)
    (other / "key.pem").rename(tmp_path / "other.pem")
    return tmp_path


def write(folder: Path, text: str) -> Path:
    """The file, with what is to be within it."""
    for name in ("cert", "key"):
        lines = (folder / f"{name}.pem").read_text().splitlines()
        text = text.replace(f"{{{name}}}", "".join(f"    {line}\n" for line in lines))
    path = folder / "web.yml"
    path.write_text(text)
    return path


def promtool_takes(path: Path) -> bool:
    """The verdict of Prometheus' own."""
    if shutil.which("promtool") is None:
        pytest.skip("no promtool: install prometheus")
    done = subprocess.run(
        ["promtool", "check", "web-config", path], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0


def refusal(path: Path) -> str:
    """What we say of a file."""
    with pytest.raises(LatencyError) as refused:
        read_web_config(str(path), Files())
    text = str(refused.value)
    assert "\n" not in text
    assert text.isprintable()
    assert len(text) < 1000 + len(str(path))
    return text


@pytest.mark.parametrize("name", GOOD)
def test_both_take_it(folder: Path, name: str) -> None:
    """A good file."""
    path = write(folder, GOOD[name])
    read_web_config(str(path), Files())
    assert promtool_takes(path)


@pytest.mark.parametrize("name", BAD)
def test_both_refuse_it(folder: Path, name: str) -> None:
    """A bad file; we say what is bad in one line."""
    text, said = BAD[name]
    path = write(folder, text)
    assert said in refusal(path)
    assert not promtool_takes(path)


@pytest.mark.parametrize("name", ONLY_OURS_TAKES)
def test_we_take_it(folder: Path, name: str) -> None:
    """What promtool of Debian 12 does not know yet."""
    path = write(folder, ONLY_OURS_TAKES[name])
    read_web_config(str(path), Files())
    assert not promtool_takes(path), "take it over into GOOD"


@pytest.mark.parametrize("name", ONLY_OURS_REFUSES)
def test_we_refuse_it(folder: Path, name: str) -> None:
    """What cannot work here, or should not anywhere."""
    text, said = ONLY_OURS_REFUSES[name]
    path = write(folder, text)
    assert said in refusal(path)
    assert promtool_takes(path), "take it over into BAD"


@pytest.mark.parametrize("name", BAD_OF_TODAY)
def test_wrong_values_of_younger_keys_are_refused(folder: Path, name: str) -> None:
    """As promtool of today does it."""
    text, said = BAD_OF_TODAY[name]
    assert said in refusal(write(folder, text))


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [" + "*a, " * 3,
        "[" * 100_000,
        "{" * 1000,
        "? [a, b]\n: c\n",
        "!!python/object/apply:os.system [id]",
        "a: !!binary x",
        "\x00",
        "basic_auth_users: {1: 2}",
        "basic_auth_users: [a]",
        "tls_server_config: 5",
        "rate_limit: {interval: 1e99h}",
        "http_server_config: {headers: [a]}",
        "&a {*a : 1}",
        "--- 1\n--- 2\n",
        f"a: {'9' * 5000}",
        f"{'a' * 100_000}: b",
        '"\\e]0;\\n": b',
        '"\\e]0;\\n": b\n' * 2,
        f'{TLS}  min_version: "\\e\\n{"a" * 100_000}"',
        f'{TLS}  client_auth_type: "\\e\\n{"a" * 100_000}"',
        f'basic_auth_users: {{"\\e\\n{"a" * 100_000}": b}}',
        f'rate_limit: {{interval: "\\e{"1s" * 10_000}"}}',
        f"{TLS.replace('cert.pem', chr(34) + chr(92) + 'ea' * 100 + chr(34))}",
        f"{TLS.replace('cert.pem', chr(34) + chr(92) + '0' + chr(34))}",
    ],
)
def test_strange_yaml_is_refused_in_a_line(folder: Path, text: str) -> None:
    """Whatever it is."""
    refusal(write(folder, text))


def test_other_files_are_refused(tmp_path: Path) -> None:
    """A folder, a file that is not there, one that is too long, and one that is no UTF-8."""
    assert "not a regular file" in refusal(tmp_path) or "Is a directory" in refusal(tmp_path)
    assert "No such file" in refusal(tmp_path / "none.yml")
    path = tmp_path / "web.yml"
    path.write_bytes(b"#" * (1 << 20) + b"\n")
    assert "has more than 1 MiB" in refusal(path)
    path.write_bytes(b"a: \xff\xfe")
    assert "it is no YAML that can be read" in refusal(path)
