"""Where a server's options come from, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from unimeter import limits
from unimeter.errors import InvalidInputError
from unimeter.server.config import Config, load_config


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_defaults_need_nothing() -> None:
    config = load_config(environment={})
    assert config == Config()
    assert (config.data_dir, config.bind) == ("./unimeter-data", "127.0.0.1")
    assert (config.port, config.http_port, config.ack) == (7001, 9090, "quorum")
    assert config.disk_free_bytes_min == limits.DISK_FREE_BYTES_MIN


def test_flag_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    file = write(tmp_path / "node.toml", "port = 1\nhttp-port = 2\nbind = '10.0.0.1'\n")
    environment = {"UNIMETER_HTTP_PORT": "3", "UNIMETER_PORT": "4"}
    config = load_config({"port": "5", "bind": None}, environment=environment, file=file)
    assert (config.port, config.http_port, config.bind) == (5, 3, "10.0.0.1")
    assert config.ack == "quorum"


def test_the_environment_can_name_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "node.toml", "ack = 'leader'\n")
    assert load_config(environment={"UNIMETER_CONFIG": str(file)}).ack == "leader"


@pytest.mark.parametrize(
    ("text", "number"), [("64MiB", 2**26), ("2 GB", 2 * 10**9), ("1048576", 2**20)]
)
def test_sizes_take_units(text: str, number: int) -> None:
    config = load_config({"snapshot_log_bytes": text}, environment={})
    assert config.snapshot_log_bytes == number


@pytest.mark.parametrize(("text", "seconds"), [("90d", 7_776_000), ("12h", 43_200), ("30", 30)])
def test_durations_take_units(text: str, seconds: int) -> None:
    assert load_config({"retention_age": text}, environment={}).retention_age == seconds


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"port": "70000"}, "port must be between 0 and 65535"),
        ({"port": "http"}, "--port must be a number like 7001, not 'http'"),
        ({"port": "7001", "http_port": "7001"}, "both 7001"),
        ({"ack": "none"}, "ack must be 'quorum' or 'leader'"),
        ({"advertise": "example.com"}, "host:port"),
        ({"advertise": "a-very-long-host-name.example.com:7001"}, "over 23 bytes"),
        ({"retention_age": "a year"}, "--retention-age must be a number like 90d"),
        ({"snapshot_log_bytes": "1"}, "1MiB or more"),
        ({"segment_bytes": "1KiB"}, "between 1MiB and 1GiB"),
        ({"data_dir": ""}, "data_dir is empty"),
        ({"bind": ""}, "bind is empty"),
    ],
)
def test_bad_values_are_refused_with_the_option_and_the_fix(
    flags: dict[str, str], words: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        load_config(flags, environment={})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_key_in_file_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    file = write(tmp_path / "node.toml", "retention_days = 3\nretenton-age = '90d'\n")
    with pytest.raises(InvalidInputError, match="unknown option 'retention_days'"):
        load_config(environment={}, file=file)
    write(file, "retenton-age = '90d'\n")
    with pytest.raises(InvalidInputError, match="did you mean 'retention_age'"):
        load_config(environment={}, file=file)


@pytest.mark.parametrize(
    ("variable", "option"),
    [
        ("UNIMETER_DATADIR", "data_dir"),
        ("UNIMETER_RETENTION_AGES", "retention_age"),
        ("UNIMETER_HTTPPORT", "http_port"),
    ],
)
def test_misspelt_variable_is_refused(variable: str, option: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{variable}.*did you mean '{option}'"):
        load_config(environment={variable: "1"})


def test_variables_of_other_programs_are_passed_over() -> None:
    environment = {
        "UNIMETER_PURE": "1",
        "UNIMETER_SERVER": "localhost:7001",
        "UNIMETER_SHARED": "/shared",
        "UNIMETER_PORT": "tcp://10.0.0.7:7001",  # what Kubernetes sets for a service
        "UNIMETER_PORT_7001_TCP_ADDR": "10.0.0.7",
        "UNIMETER_SERVICE_HOST": "10.0.0.7",
        "PATH": "/bin",
    }
    assert load_config(environment=environment) == Config()


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="No such file"):
        load_config(environment={}, file=tmp_path / "none.toml")
    with pytest.raises(InvalidInputError, match="is not TOML"):
        load_config(environment={}, file=write(tmp_path / "bad.toml", "port = = 1"))
