"""``unimeter serve``: run a node until SIGTERM or Ctrl-C.

The options are the fields of the server's `Config`; a flag wins over
``UNIMETER_*`` in the environment, that over the TOML file, that over the
default. The server itself speaks on stderr and decides the exit code.
"""

from __future__ import annotations

import click

EPILOG = """\b
Examples:
  unimeter serve
  unimeter serve --data-dir /var/lib/unimeter --bind 0.0.0.0 --advertise meter.example.com:7001
  unimeter serve --config unimeter.toml --retention-age 400d
  UNIMETER_PORT=7002 UNIMETER_HTTP_PORT=9092 unimeter serve
  unimeter serve --node-id 2 --cluster-id billing --cluster-secret-file secret \
      --peers 1=10.0.0.1:7101,2=10.0.0.2:7101,3=10.0.0.3:7101 --advertise 10.0.0.2:7001

\b
The same names in the environment and in a TOML file:
  UNIMETER_DATA_DIR=/var/lib/unimeter     data_dir = "/var/lib/unimeter"

Ready when it says so on stderr, and when GET /ready of the HTTP port answers
200. SIGTERM finishes what is in flight and ends with code 0.
"""


@click.command(epilog=EPILOG)
@click.option(
    "--data-dir", metavar="PATH", help="Where the data lives.  [default: ./unimeter-data]"
)
@click.option("--bind", metavar="HOST", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", metavar="PORT", help="For clients; 0 is any free one.  [default: 7001]")
@click.option(
    "--http-port",
    metavar="PORT",
    help="Of HTTP: API, dashboard, probes, /metrics.  [default: 9090]",
)
@click.option(
    "--advertise", metavar="HOST:PORT",
    help="The address clients are told.  [default: the one they came by]",
)  # fmt: skip
@click.option(
    "--ack", metavar="WHEN",
    help="What the first protocol's ASYNC waits for: quorum or leader.  [default: quorum]",
)  # fmt: skip
@click.option(
    "--retention-age", metavar="TIME", help="Remove events older than 400d, 12h.  [default: keep]"
)
@click.option(
    "--retention-bytes", metavar="SIZE", help="Keep this much log, such as 200GiB.  [default: all]"
)
@click.option(
    "--snapshot-log-bytes", metavar="SIZE", help="Log until the next snapshot.  [default: 1GiB]"
)
@click.option(
    "--segment-bytes", metavar="SIZE", help="Of one log file.  [default: by the volume's size]"
)
@click.option(
    "--disk-free-bytes-min", metavar="SIZE",
    help="With less free space clients are told to wait.  [default: 128MiB]",
)  # fmt: skip
@click.option(
    "--inflight-bytes-max", metavar="SIZE",
    help="With more accepted and not yet durable they are told to wait.  [default: 256MiB]",
)  # fmt: skip
@click.option("--node-id", metavar="N", help="Of this node in its cluster.  [default: 1]")
@click.option(
    "--peers", metavar="LIST",
    help="All nodes of the cluster: 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT.  [default: alone]",
)  # fmt: skip
@click.option("--cluster-id", metavar="NAME", help="The same on every node of a cluster.")
@click.option(
    "--cluster-secret-file", metavar="PATH",
    help="Holds what the nodes prove to each other that they know.",
)  # fmt: skip
@click.option(
    "--peer-bind", metavar="HOST",
    help="Where to listen for peers.  [default: this node's own entry in --peers]",
)  # fmt: skip
@click.option(
    "--insecure", is_flag=True, default=None,
    help="Let other hosts in though there is no key.",
)  # fmt: skip
@click.option(
    "--admin-key-file", metavar="PATH",
    help="Holds a key with the scope admin, beside those in the log; read again when it changes.",
)  # fmt: skip
@click.option(
    "--tls-cert", metavar="PATH",
    help="Certificate and chain, PEM: both ports speak TLS only; read again when it changes.",
)  # fmt: skip
@click.option("--tls-key", metavar="PATH", help="Its private key.  [default: it is in --tls-cert]")
@click.option(
    "--tls-ca", metavar="PATH", help="Who signs the certificates of peers, and of clients."
)
@click.option(
    "--tls-clients", is_flag=True, default=None,
    help="Clients need a certificate that --tls-ca signed.",
)  # fmt: skip
@click.option(
    "--peer-tls", is_flag=True, default=None,
    help="Nodes speak TLS to each other, with certificates that --tls-ca signed.",
)  # fmt: skip
@click.option(
    "--http-body-bytes-max", metavar="SIZE",
    help="Of an HTTP request that is not streamed.  [default: 16MiB]",
)  # fmt: skip
@click.option(
    "--log-format", metavar="FORMAT",
    help="Of the lines on stderr: text, or json, one object a line.  [default: text]",
)  # fmt: skip
@click.option("--access-log", metavar="YES", help="One line for each HTTP request.  [default: no]")
@click.option(
    "--mapping-file", metavar="PATH",
    help="TOML: how CloudEvents, OTLP and other products' events are counted.",
)  # fmt: skip
@click.option("--config", "config_file", metavar="PATH", help="A TOML file with these options.")
@click.pass_context
def command(ctx: click.Context, /, config_file: str | None, **flags: str | bool | None) -> None:
    """Run a node with its data in a directory, until SIGTERM or Ctrl-C."""
    from unimeter.server.process import serve_options

    ctx.exit(serve_options(flags, config_file))
