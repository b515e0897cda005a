"""For HEALTHCHECK: exits 0 when this container's node answers /health with 200.

The image has no curl. With TLS the certificate's name is not looked at: the request never leaves
the container, and what is asked is whether the process lives.
"""

from __future__ import annotations

import os
import ssl
import sys
import urllib.error
import urllib.request


def is_healthy(environment: dict[str, str]) -> bool:
    """Whether the node that these variables describe says that it is well."""
    port = environment.get("UNIMETER_HTTP_PORT", "9090")
    is_tls = bool(environment.get("UNIMETER_TLS_CERT"))
    context = ssl._create_unverified_context() if is_tls else None
    url = f"{'https' if is_tls else 'http'}://127.0.0.1:{port}/health"
    try:
        with urllib.request.urlopen(url, timeout=2, context=context) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


if __name__ == "__main__":
    sys.exit(0 if is_healthy(dict(os.environ)) else 1)
