"""An authority and certificates of its own for a test, made by the `openssl` command."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, as files."""

    cert: str
    key: str


class Authority:
    """Signs certificates for 127.0.0.1 and localhost."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name = folder, name
        self.ca = str(folder / f"{name}.pem")
        self._key = str(folder / f"{name}.key")
        self._count = 0
        openssl(
            "req", "-x509", *CURVE, "-keyout", self._key, "-out", self.ca, "-days", "2",
            "-subj", f"/CN={name}",
        )  # fmt: skip

    def certificate(self, names: str = "IP:127.0.0.1,DNS:localhost") -> Certificate:
        """A new one."""
        self._count += 1
        stem = self.folder / f"{self.name}-{self._count}"
        found = Certificate(f"{stem}.pem", f"{stem}.key")
        request, more = f"{stem}.csr", f"{stem}.ext"
        Path(more).write_text(f"subjectAltName={names}\n")
        openssl("req", "-new", *CURVE, "-keyout", found.key, "-out", request, "-subj", "/CN=node")
        openssl(
            "x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self._key, "-days", "1",
            "-set_serial", str(self._count), "-extfile", more, "-out", found.cert,
        )  # fmt: skip
        return found


def openssl(*arguments: str) -> str:
    """What `openssl` prints. It may be missing, but not in CI."""
    if shutil.which("openssl") is None:
        text = "no openssl: apt-get install openssl"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    done = subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True)
    return done.stdout
