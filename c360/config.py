"""Settings: `C360_*` variables, then `[tool.c360]` of the `pyproject.toml` in the working directory. Read here only.

Unknown names are refused with the nearest known one: a setting that is misspelt must not be a setting that is ignored.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from c360.errors import UsageError

KNOWN: Mapping[str, str] = {
    "app": "the app, as module:name",
    "broker": "Kafka bootstrap servers, as host:port[,host:port]",
    "state_dir": "directory of local state; default .c360",
    "memory_mb": "MiB that decoded state and RocksDB may take, per process; default 384",
    "fence_max_age": "seconds that what a door knows of people's decisions may be old; default 1",
    "sweep": "seconds after which what is deleted has left the files of the state directory; default 86400",
    "keys": "file of the master keys, or the URL of a transit key of Vault",
    "keys_token": "token for that service",
    "keys_token_file": "file of the token, read again for each request",
    "registry": "URL of the schema registry, for sources in Avro and for what leaves",
    "registry_user": "user name for it",
    "registry_password": "password for it",
    "wire": "what leaves through doors: avro (default where there is a registry) or json",
    "cloudevents": "true: what leaves has CloudEvents attributes in its headers; default false",
    "schemas": "directory of Avro schemas, for c360 schemas check; default: schemas, where it exists",
    "slot": "name of this worker, unique among all; default: kept in the state directory",
}
MEMORY_MIN_MB = 32
SWEEP_MIN_S = 1.0
FENCE_MIN_S, FENCE_MAX_S = 0.5, 60.0  # the agents say four times a second how far they are
PREFIX = "C360_"
CLIENT = "KAFKA_"  # C360_KAFKA_SASL_MECHANISM → sasl.mechanism
OURS = ("C360_TEST_", "C360_NO_KAFKA")  # beginnings of names that the project's own tests read


@dataclass(frozen=True)
class Settings:
    """What a command runs with."""

    app: str | None = None
    broker: str | None = None
    state_dir: Path = Path(".c360")
    memory_mb: int = 384
    slot: str | None = None
    fence_max_age_s: float = 1.0
    sweep_s: float = 86_400.0
    keys: str | None = None
    keys_token: str | None = field(default=None, repr=False)
    keys_token_file: Path | None = None
    registry: str | None = None
    registry_user: str | None = None
    registry_password: str | None = field(default=None, repr=False)
    wire: str | None = None
    cloudevents: bool = False
    schemas: Path | None = None
    kafka: Mapping[str, str] = field(default_factory=dict)  # client settings by their Kafka names

    @property
    def writes_avro(self) -> bool:
        """Whether what leaves through doors is in Avro."""
        return self.registry is not None and self.wire != "json"


def read_settings(environ: Mapping[str, str] | None = None, directory: Path | None = None) -> Settings:
    """Settings of this process. Raises UsageError for an unknown name or an unreadable file."""
    environ = os.environ if environ is None else environ
    found: dict[str, str] = {}
    kafka: dict[str, str] = {}
    for name, value in _table((directory or Path.cwd()) / "pyproject.toml").items():
        if name == "kafka" and isinstance(value, dict):
            kafka |= {str(k): _text(v) for k, v in value.items()}
        elif name in KNOWN:
            found[name] = _text(value)
        else:
            raise UsageError(f"pyproject.toml [tool.c360]: unknown setting {name!r}{_nearest(name, [*KNOWN, 'kafka'])}")
    for name, value in environ.items():
        if not name.startswith(PREFIX) or name.startswith(OURS):
            continue
        short = name.removeprefix(PREFIX)
        if short.startswith(CLIENT):
            kafka[short.removeprefix(CLIENT).lower().replace("_", ".")] = value
        elif short.lower() in KNOWN:
            found[short.lower()] = value
        else:
            names = [PREFIX + k.upper() for k in KNOWN]
            raise UsageError(f"unknown setting {name}{_nearest(name, names)}")
    return Settings(
        app=found.get("app"),
        broker=found.get("broker"),
        state_dir=Path(found.get("state_dir", ".c360")),
        memory_mb=_megabytes(found.get("memory_mb", str(Settings.memory_mb))),
        slot=found.get("slot"),
        fence_max_age_s=_fence_age(found.get("fence_max_age", str(Settings.fence_max_age_s))),
        sweep_s=_sweep(found.get("sweep", str(Settings.sweep_s))),
        keys=found.get("keys"),
        keys_token=found.get("keys_token"),
        keys_token_file=None if "keys_token_file" not in found else Path(found["keys_token_file"]),
        registry=found.get("registry"),
        registry_user=found.get("registry_user"),
        registry_password=found.get("registry_password"),
        wire=_wire(found.get("wire"), found.get("registry")),
        cloudevents=_flag("cloudevents", found.get("cloudevents", "false")),
        schemas=None if "schemas" not in found else Path(found["schemas"]),
        kafka=kafka,
    )


def environment(**settings: str) -> dict[str, str]:
    """What a process of ours is given: the environment of this one, with these settings ("state_dir", "kafka_client_id")."""
    return {**os.environ, **{PREFIX + name.upper(): value for name, value in settings.items()}}


def _wire(said: str | None, registry: str | None) -> str | None:
    if said not in (None, "avro", "json"):
        raise UsageError(f"wire is {said!r}; it must be avro or json")
    if said == "avro" and registry is None:
        raise UsageError("wire is avro, which takes a schema registry: set C360_REGISTRY to its URL, or leave wire out")
    return said


def _flag(name: str, said: str) -> bool:
    if said.lower() not in ("true", "false"):
        raise UsageError(f"{name} is {said!r}; it must be true or false")
    return said.lower() == "true"


def _megabytes(said: str) -> int:
    if not said.isdecimal() or int(said) < MEMORY_MIN_MB:
        raise UsageError(f"memory_mb is {said!r}; it must be a whole number of MiB, {MEMORY_MIN_MB} or more")
    return int(said)


def _fence_age(said: str) -> float:
    try:
        seconds = float(said)
    except ValueError:
        seconds = 0.0
    if not FENCE_MIN_S <= seconds <= FENCE_MAX_S:
        raise UsageError(f"fence_max_age is {said!r}; it must be seconds, from {FENCE_MIN_S:g} to {FENCE_MAX_S:g}")
    return seconds


def _sweep(said: str) -> float:
    try:
        seconds = float(said)
    except ValueError:
        seconds = 0.0
    if not SWEEP_MIN_S <= seconds <= Settings.sweep_s:
        raise UsageError(
            f"sweep is {said!r}; it must be seconds, from {SWEEP_MIN_S:g} to {Settings.sweep_s:g}, which is what we promise"
        )
    return seconds


def _table(path: Path) -> dict[str, object]:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    try:
        table = tomllib.loads(content.decode())
    except ValueError as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error
    tool = table.get("tool", {}).get("c360", {})
    return dict(tool)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"
