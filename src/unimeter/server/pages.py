"""What a page for the operator is, before any HTTP: a status, a content type, bytes."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

TEXT: Final = "text/plain; charset=utf-8"

Page = tuple[HTTPStatus, str, bytes]
"""Status, content type, body."""
