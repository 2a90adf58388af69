"""Certificates of an authority of our own, for both ends of TLS."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path


class Authority:
    """Writes a server's certificate into a folder, and makes contexts of clients.

    Args:
        folder: for `cert.pem`, `key.pem` and `ca.pem`.
    """

    def __init__(self, folder: Path) -> None:
        """Make an authority and a first certificate."""
        self.folder = folder
        self.ca = trustme.CA()
        self.ca.cert_pem.write_to_path(str(folder / "ca.pem"))
        self.renew()

    def renew(self) -> None:
        """A new certificate and key in the place of the old; each file whole at any time."""
        made = self.ca.issue_cert("127.0.0.1", "localhost")
        chain = b"".join(each.bytes() for each in made.cert_chain_pems)
        replace(self.folder / "key.pem", made.private_key_pem.bytes())
        replace(self.folder / "cert.pem", chain)

    def client(self, *names: str) -> ssl.SSLContext:
        """A client that trusts the authority; with a certificate for these names, if any."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        if names:
            self.ca.issue_cert(*names).configure_cert(context)
        return context


def replace(path: Path, content: str | bytes) -> None:
    """Give a file another content, at once."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(new, path)
