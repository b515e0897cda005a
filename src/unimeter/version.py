"""The version, once: the package's metadata, ``unimeter version`` and a server's Hello read it."""

from typing import Final

VERSION: Final = "0.1.0"
