"""What a server is told: one dataclass, four sources.

Owns the names, defaults and checks of a server's options. A value is taken
from the first of these that has it:

    command-line flag > environment (UNIMETER_*) > TOML file > default

Every option has the same name everywhere: ``data_dir`` is ``--data-dir``,
``UNIMETER_DATA_DIR`` and ``data_dir`` (or ``data-dir``) in the file. Sizes take
``64MiB`` or ``2GB``, durations ``90d``, ``12h``, ``30s``.

An unknown key in the file is refused with the names that exist, and so is a
variable that is nearly one of them, because a misspelt retention that is quietly
ignored is found out when the disk is full. Other ``UNIMETER_*`` variables belong
to other programs (Kubernetes sets ``UNIMETER_PORT_7001_TCP`` for a service of that
name) and are passed over.

Rejected: a configuration library. There are a dozen options and two types.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from unimeter import limits
from unimeter.errors import InvalidInputError
from unimeter.server.members import check_cluster
from unimeter.server.tls import check_tls

ADDRESS_BYTES_MAX = 23  # the partition map's field in v1 has 24 bytes and ends in NUL
ENVIRONMENT_PREFIX = "UNIMETER_"
NEAR = 0.75  # likeness from which a variable counts as a misspelt option
_KUBERNETES = re.compile(r"(SERVICE_.*|PORT_\d+_(TCP|UDP).*)$")


@dataclass(frozen=True)
class Config:
    """The options of one server. Build it with `load_config` or by keyword."""

    data_dir: str = "./unimeter-data"
    bind: str = "127.0.0.1"
    port: int = 7001  # 0 = any free port
    http_port: int = 9090  # 0 = any free port
    advertise: str = ""  # host:port; empty = the address a client reached this node by
    ack: str = "quorum"  # what v1's ASYNC delivery waits for
    snapshot_log_bytes: int = limits.SNAPSHOT_LOG_BYTES
    segment_bytes: int = 0  # 0 = chosen by the size of the volume
    retention_age: int = 0  # seconds; 0 = keep
    retention_bytes: int = 0  # of log; 0 = keep
    disk_free_bytes_min: int = limits.DISK_FREE_BYTES_MIN
    inflight_bytes_max: int = limits.INFLIGHT_BYTES_MAX
    node_id: int = 1
    peers: str = ""  # 1=host:port,2=host:port,3=host:port; empty = this node is alone
    cluster_id: str = ""  # a name; the same on every node of the cluster
    cluster_secret: str = field(default="", repr=False)  # what peers prove that they know
    cluster_secret_file: str = ""  # or the file that holds it
    peer_bind: str = ""  # where to listen for peers; empty = as this node's entry in peers says
    insecure: bool = False  # listen beyond loopback though there is no key
    admin_key_file: str = ""  # holds a key of scope admin, beside those in the log
    tls_cert: str = ""  # PEM, with its chain; then both ports speak TLS only
    tls_key: str = ""  # PEM; empty = it is in tls_cert
    tls_ca: str = ""  # PEM; who signs the peers' certificates, and the clients' if they need one
    tls_clients: bool = False  # clients need a certificate of tls_ca
    peer_tls: bool = False  # nodes speak TLS to each other, with certificates of tls_ca
    http_body_bytes_max: int = 16 * 1024 * 1024  # of a request that is not a stream
    mapping_file: str = ""  # TOML: how CloudEvents and OTLP become events
    log_format: str = "text"  # or json
    access_log: bool = False  # a line for each HTTP request

    def __post_init__(self) -> None:
        """Check every value; raise InvalidInputError naming the option and the fix."""
        check_port("port", self.port)
        check_port("http_port", self.http_port)
        if self.port and self.port == self.http_port:
            raise InvalidInputError(
                f"port and http_port are both {self.port}; give them different ports"
            )
        if self.ack not in ("quorum", "leader"):
            raise InvalidInputError(f"ack must be 'quorum' or 'leader', not {self.ack!r}")
        if self.log_format not in ("text", "json"):
            raise InvalidInputError(f"log_format must be 'text' or 'json', not {self.log_format!r}")
        if not self.data_dir:
            raise InvalidInputError("data_dir is empty; name the directory to keep the data in")
        if not self.bind:
            raise InvalidInputError("bind is empty; use 127.0.0.1, or 0.0.0.0 for every interface")
        check_advertise(self.advertise)
        for name in ("segment_bytes", "retention_age", "retention_bytes", "disk_free_bytes_min"):
            if getattr(self, name) < 0:
                raise InvalidInputError(f"{name} must not be negative, not {getattr(self, name)}")
        if self.segment_bytes and not 2**20 <= self.segment_bytes <= 2**30:
            raise InvalidInputError(
                f"segment_bytes must be between 1MiB and 1GiB, not {self.segment_bytes}"
            )
        for name in ("snapshot_log_bytes", "inflight_bytes_max"):
            if getattr(self, name) < 2**20:
                raise InvalidInputError(f"{name} must be 1MiB or more, not {getattr(self, name)}")
        check_cluster(self)
        check_tls(self)

    @property
    def is_cluster(self) -> bool:
        """Whether this node is one of several."""
        return bool(self.peers)


def check_port(name: str, value: int) -> None:
    """Raise InvalidInputError unless `value` is a TCP port or 0."""
    if not 0 <= value <= 65_535:
        raise InvalidInputError(f"{name} must be between 0 and 65535, not {value}")


def check_advertise(address: str) -> None:
    """Raise InvalidInputError unless `address` is empty or a ``host:port`` that v1 can carry."""
    if not address:
        return
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdigit() and 1 <= int(port) <= 65_535):
        raise InvalidInputError(f"advertise must be host:port, not {address!r}")
    if len(address.encode()) > ADDRESS_BYTES_MAX:
        raise InvalidInputError(
            f"advertise {address!r} is over {ADDRESS_BYTES_MAX} bytes, which is all that the "
            "partition map has room for; use an IP address or a shorter name"
        )


_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def _quantity(name: str, value: object, units: Mapping[str, int], example: str) -> int:
    """An int, or text like ``64MiB``, in the units' base."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"\s*(\d+)\s*([A-Za-z]*)\s*", value) if isinstance(value, str) else None
    if match is None or match[2].lower() not in units:
        raise InvalidInputError(f"{name} must be a number like {example}, not {value!r}")
    return int(match[1]) * units[match[2].lower()]


def _number(name: str, value: object) -> int:
    return _quantity(name, value, {"": 1}, "7001")


def _bytes(name: str, value: object) -> int:
    return _quantity(name, value, _UNITS, "64MiB or 67108864")


def _duration(name: str, value: object) -> int:
    return _quantity(name, value, _SECONDS, "90d, 12h or 3600 (seconds)")


def _switch(name: str, value: object) -> bool:
    """A bool, or the text for one."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    found = words.get(str(value).lower())
    if found is None:
        raise InvalidInputError(f"{name} must be true or false, not {value!r}")
    return found


def _text(name: str, value: object) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise InvalidInputError(f"{name} must be text, not {value!r}")
    return value


PARSERS: Mapping[str, Callable[[str, object], Any]] = {
    "data_dir": _text,
    "bind": _text,
    "port": _number,
    "http_port": _number,
    "advertise": _text,
    "ack": _text,
    "snapshot_log_bytes": _bytes,
    "segment_bytes": _bytes,
    "retention_age": _duration,
    "retention_bytes": _bytes,
    "disk_free_bytes_min": _bytes,
    "inflight_bytes_max": _bytes,
    "node_id": _number,
    "peers": _text,
    "cluster_id": _text,
    "cluster_secret": _text,
    "cluster_secret_file": _text,
    "peer_bind": _text,
    "insecure": _switch,
    "admin_key_file": _text,
    "tls_cert": _text,
    "tls_key": _text,
    "tls_ca": _text,
    "tls_clients": _switch,
    "peer_tls": _switch,
    "http_body_bytes_max": _bytes,
    "mapping_file": _text,
    "log_format": _text,
    "access_log": _switch,
}
assert list(PARSERS) == [one.name for one in fields(Config)]


def _check_known(key: str, shown: str, where: str) -> None:
    """Raise InvalidInputError if `key` is no option, with the nearest name there is."""
    if key in PARSERS:
        return
    near = difflib.get_close_matches(key, PARSERS, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(PARSERS)}"
    raise InvalidInputError(f"{where}: unknown option {shown!r}; {hint}")


def read_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The options of a TOML file, by name; InvalidInputError if it can't be read."""
    try:
        with Path(path).open("rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise InvalidInputError(f"configuration file {path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"configuration file {path} is not TOML: {error}") from None
    options = {}
    for shown, value in found.items():
        key = shown.replace("-", "_")
        _check_known(key, shown, f"configuration file {path}")
        options[key] = PARSERS[key](f"{shown} in {path}", value)
    return options


def read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """The options set by ``UNIMETER_*`` variables, by name."""
    options = {}
    for variable in sorted(environment):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        tail, value = variable.removeprefix(ENVIRONMENT_PREFIX), environment[variable]
        if _KUBERNETES.match(tail) or value.startswith("tcp://"):
            continue
        key = tail.lower()
        if key not in PARSERS and not difflib.get_close_matches(key, PARSERS, 1, NEAR):
            continue
        _check_known(key, variable, "environment")
        options[key] = PARSERS[key](variable, value)
    return options


def load_config(
    flags: Mapping[str, Any] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    file: str | os.PathLike[str] | None = None,
) -> Config:
    """Merge flags, environment and file into a checked Config.

    A flag whose value is None counts as not given. `file` None falls back to
    the path in ``UNIMETER_CONFIG``. Raises InvalidInputError with one sentence.
    """
    environment = os.environ if environment is None else environment
    file = file or environment.get(ENVIRONMENT_PREFIX + "CONFIG")
    options = read_file(file) if file else {}
    options |= read_environment(environment)
    for name, value in (flags or {}).items():
        if value is not None:
            _check_known(name, name, "options")
            options[name] = PARSERS[name]("--" + name.replace("_", "-"), value)
    return Config(**options)
