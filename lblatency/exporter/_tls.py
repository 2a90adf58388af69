"""TLS as exporter-toolkit's `tls_server_config` describes it."""

from __future__ import annotations

import os
import ssl
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

__all__ = ["CIPHERS", "CLIENT_AUTH", "CURVES", "VERSIONS", "Pem", "make_context"]

VERSIONS = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
CURVES = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}
# Go's names to OpenSSL's. Those of TLS 1.3 cannot be chosen, neither there nor here.
CIPHERS = {
    "TLS_AES_128_GCM_SHA256": "",
    "TLS_AES_256_GCM_SHA384": "",
    "TLS_CHACHA20_POLY1305_SHA256": "",
    **{
        f"TLS_ECDHE_{key}_WITH_{go}": f"ECDHE-{key}-{openssl}"
        for key in ("ECDSA", "RSA")
        for go, openssl in {
            "AES_128_CBC_SHA": "AES128-SHA",
            "AES_256_CBC_SHA": "AES256-SHA",
            "AES_128_GCM_SHA256": "AES128-GCM-SHA256",
            "AES_256_GCM_SHA384": "AES256-GCM-SHA384",
            "CHACHA20_POLY1305_SHA256": "CHACHA20-POLY1305",
        }.items()
    },
}
# A certificate that is asked for and not verified says nothing, so it is not asked for.
CLIENT_AUTH = {
    "": ssl.CERT_NONE,
    "NoClientCert": ssl.CERT_NONE,
    "RequestClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}


@dataclass(frozen=True)
class Pem:
    """The contents of a certificate, its key, and of the clients' authorities, if any."""

    cert: bytes
    key: bytes
    client_ca: bytes | None


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """A name for it, since OpenSSL reads certificates and keys from files only."""
    fd = os.memfd_create("pem")
    try:
        os.write(fd, data)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def make_context(
    pem: Pem,
    *,
    client_auth: str,
    min_version: str,
    max_version: str,
    ciphers: list[str],
    curves: list[str],
    prefer_server: bool,
) -> ssl.SSLContext:
    """A server's context; the arguments are keys of the tables above.

    Raises:
        ValueError: they do not fit together, or OpenSSL refuses one; it says why.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of old versions: who asks, knows
        context.minimum_version = VERSIONS[min_version]
        context.maximum_version = VERSIONS[max_version]
    if context.minimum_version > context.maximum_version:
        raise ValueError(f"min_version {min_version} is above max_version {max_version}")
    if not prefer_server:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if chosen := [CIPHERS[each] for each in ciphers if CIPHERS[each]]:
        context.set_ciphers(":".join(chosen))
    if len(set(curves)) == 1:
        context.set_ecdh_curve(CURVES[curves[0]])
    elif set(curves) not in (set(), set(CURVES)):
        raise ValueError("curve_preferences: Python's ssl can be told one curve, or all of them")
    with ExitStack() as files:
        cert, key = (files.enter_context(_as_file(each)) for each in (pem.cert, pem.key))
        try:
            context.load_cert_chain(cert, key, password="")  # it must not ask at a terminal
        except (OSError, ValueError) as error:
            raise ValueError(f"the certificate and its key cannot be used: {_why(error)}") from None
    if pem.client_ca is not None:
        try:
            context.load_verify_locations(cadata=pem.client_ca.decode("latin-1"))
        except (OSError, ValueError) as error:
            raise ValueError(f"no authority in client_ca can be used: {_why(error)}") from None
    elif CLIENT_AUTH[client_auth] != ssl.CERT_NONE:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)  # the system's, as Go does it
    context.verify_mode = CLIENT_AUTH[client_auth]
    return context


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    return str(reason or error)
