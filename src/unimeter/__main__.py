"""``python -m unimeter``: the same command as ``unimeter``."""

from __future__ import annotations

from unimeter.cli.main import main

if __name__ == "__main__":
    main()
