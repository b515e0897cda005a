"""When a certificate ends, read from its PEM file.

Owns just enough of X.509's outer form (DER) to find one field: nothing is checked, which is
OpenSSL's to do when it loads the file, and an answer is for whoever watches.

    Certificate { TBSCertificate { [0] version, serial, signature, issuer,
                                   Validity { notBefore, notAfter }, ... } ... }

Rejected: a dependency for one date. `ssl` has the same reader, under a private name.
"""

from __future__ import annotations

import calendar
import ssl

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_EXPLICIT_VERSION, _UTC_TIME = 0xA0, 0x17
_BEFORE_VALIDITY = 3  # serial, signature, issuer


def expires_at(pem: str) -> int:
    """Unix seconds at which the first certificate of a PEM text ends; 0 if that can't be read."""
    start, end = pem.find(_BEGIN), pem.find(_END)
    if start < 0 or end < start:
        return 0
    try:
        return _not_after(ssl.PEM_cert_to_DER_cert(pem[start : end + len(_END)] + "\n"))
    except (ValueError, IndexError):
        return 0


def _not_after(der: bytes) -> int:
    _, certificate, _ = _item(der, 0)
    _, body, _ = _item(certificate, 0)
    kind, _, at = _item(body, 0)
    if kind != _EXPLICIT_VERSION:
        at = 0
    for _ in range(_BEFORE_VALIDITY):
        _, _, at = _item(body, at)
    _, validity, _ = _item(body, at)
    _, _, at = _item(validity, 0)
    kind, text, _ = _item(validity, at)
    return _seconds(kind, text.decode("ascii"))


def _item(data: bytes, at: int) -> tuple[int, bytes, int]:
    """The item at `at`: its kind, its content, and where the next one begins."""
    kind, size, begin = data[at], data[at + 1], at + 2
    if size & 0x80:
        digits = size & 0x7F
        size, begin = int.from_bytes(data[begin : begin + digits], "big"), begin + digits
    if begin + size > len(data):
        raise ValueError("it ends in the middle")
    return kind, data[begin : begin + size], begin + size


def _seconds(kind: int, text: str) -> int:
    """YYMMDDhhmmssZ until 2049, YYYYMMDDhhmmssZ from then on (RFC 5280)."""
    if kind == _UTC_TIME:
        text = ("20" if int(text[:2]) < 50 else "19") + text
    parts = (text[:4], text[4:6], text[6:8], text[8:10], text[10:12], text[12:14])
    year, month, day, hour, minute, second = (int(part) for part in parts)
    return calendar.timegm((year, month, day, hour, minute, second))
