"""The end of a certificate, against what OpenSSL says of the same file."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from tests.deploy.watched import certificate
from tests.server.certificates import openssl

from unimeter.server.certificate import _seconds, expires_at


def end_by_openssl(path: str) -> int:
    said = openssl("x509", "-noout", "-enddate", "-in", path)
    return int(ssl.cert_time_to_seconds(said.strip().removeprefix("notAfter=")))


@pytest.mark.parametrize("days", [1, 400, 20_000])
def test_the_end_is_what_openssl_says(tmp_path: Path, days: int) -> None:
    path = certificate(tmp_path, days)["tls_cert"]
    pem = Path(path).read_text()
    assert expires_at(pem) == end_by_openssl(path)
    key = (tmp_path / "tls.key").read_text()
    assert expires_at(key + pem + pem) == expires_at(pem), "a key and a chain in the same file"


@pytest.mark.parametrize(
    "text",
    [
        "", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        "-----END CERTIFICATE----------BEGIN CERTIFICATE-----",
    ],
)  # fmt: skip
def test_what_is_no_certificate_has_no_end(text: str) -> None:
    assert expires_at(text) == 0


def test_a_certificate_cut_anywhere_has_no_end_or_the_right_one(tmp_path: Path) -> None:
    pem = Path(certificate(tmp_path)["tls_cert"]).read_text()
    der = ssl.PEM_cert_to_DER_cert(pem)
    right = expires_at(pem)
    assert right
    for size in range(1, len(der)):
        assert expires_at(ssl.DER_cert_to_PEM_cert(der[:size])) in (0, right)


def test_both_forms_of_a_time_are_read() -> None:
    assert _seconds(0x17, "491231235959Z") == 2_524_607_999
    assert _seconds(0x18, "20500101000000Z") == 2_524_608_000
    assert _seconds(0x17, "700101000000Z") == 0
