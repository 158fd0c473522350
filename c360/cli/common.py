"""What all commands share: settings, the app, the cluster, JSON or text, errors as exit codes."""

from __future__ import annotations

import difflib
import importlib
import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click
from rich.console import Console
from rich.logging import RichHandler

from c360.app import App
from c360.config import Settings, read_settings
from c360.engine.transport import Cluster
from c360.errors import BrokerAway, C360Error, RegistryAway, UsageError
from c360.governance.keys import MasterKeys
from c360.governance.names import Names, Vault, is_veiled
from c360.ops.contracts import Subjects
from c360.plan import Plan

if TYPE_CHECKING:
    from c360.engine.registry import SchemaRegistry

P = ParamSpec("P")
T = TypeVar("T")

stderr = Console(stderr=True)


@dataclass
class Context:
    """The invocation: `-A` and the settings; everything else on demand."""

    app_name: str | None

    @cached_property
    def settings(self) -> Settings:
        return read_settings()

    @cached_property
    def name(self) -> str:
        """Of the app, as "module:app"."""
        name = self.app_name or self.settings.app
        if not name:
            raise UsageError("which app? Say `c360 -A module:app …` or set C360_APP")
        return name

    @cached_property
    def app(self) -> App:
        return load_app(self.name)

    @cached_property
    def plan(self) -> Plan:
        return self.app.plan()

    def cluster(self, broker: str | None = None) -> Cluster:
        """The Kafka cluster of `--broker` or the settings."""
        from c360.engine.kafka import KafkaCluster  # here: commands that need no broker start without the client

        bootstrap = broker or self.settings.broker
        if not bootstrap:
            raise UsageError("which broker? Set C360_BROKER=host:port, or start one here with `c360 dev kafka`")
        return KafkaCluster(bootstrap, self.settings.kafka)

    def key_token(self) -> str:
        """The token for the key service. Raises UsageError where there is none."""
        path = self.settings.keys_token_file
        if path is not None:
            try:
                return path.read_text().strip()
            except OSError as error:
                raise UsageError(
                    f"the token file {path} (C360_KEYS_TOKEN_FILE) cannot be read: {error.strerror}"
                ) from error
        if self.settings.keys_token is None:
            raise UsageError("the key service wants a token: set C360_KEYS_TOKEN_FILE or C360_KEYS_TOKEN")
        return self.settings.keys_token

    def master(self) -> MasterKeys:
        """The master keys of C360_KEYS. Raises UsageError, ServiceAway."""
        from c360.ops.keys import open_master  # here: most commands need no keys

        return open_master(self.settings.keys, self.key_token)

    def vault(self, cluster: Cluster) -> Vault | None:
        """The keys of the app, checked; None for one that needs none. Raises UsageError, NeedsOperator."""
        from c360.ops.keys import open_vault

        return open_vault(self.plan, cluster, self.master(), os.urandom) if self.plan.needs_keys else None

    def names(self, cluster: Cluster, *typed: str) -> Names:
        """What makes labels of these identifiers as typed: with the keys only where one of them has to become a token."""
        personal = {n.name for n in self.plan.identifiers.values() if n.personal}
        if any(one.partition(":")[0] in personal and not is_veiled(one) for one in typed):
            vault = self.vault(cluster)
            assert vault is not None
            return vault.names
        return Names()

    def veil(self, cluster: Cluster) -> Callable[[str], str]:
        """How a label stands in the audit log, which is kept for ever: where customers can be forgotten, as a keyed hash."""
        vault = self.vault(cluster) if self.plan.erases else None
        return str if vault is None else vault.names.veil

    def registry(self) -> SchemaRegistry | None:
        """The schema registry of C360_REGISTRY; None where none is named. Raises UsageError."""
        if self.settings.registry is None:
            return None
        from c360.engine.registry import SchemaRegistry  # here: most commands need none, and its client takes 0.3 s

        settings = self.settings
        return SchemaRegistry(self.settings.registry, settings.registry_user, settings.registry_password)

    def subjects(self) -> Subjects | None:
        """The registry, where doors write Avro by the settings; None where they write JSON. Raises UsageError."""
        return self.registry() if self.settings.writes_avro else None

    def with_settings(self, **changes: Any) -> Settings:
        return replace(self.settings, **{k: v for k, v in changes.items() if v is not None})


def load_app(name: str) -> App:
    """The App object at "module:name". Raises UsageError saying which part was not found."""
    module_name, colon, attribute = name.partition(":")
    if "" not in sys.path and "." not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise UsageError(
                f"there is no module {module_name!r} here; run c360 from the directory it can be imported from"
            ) from error
        raise
    found = getattr(module, attribute if colon else "app", None)
    if not isinstance(found, App):
        raise UsageError(f"{module_name} has no c360.App named {attribute or 'app'!r}; say -A module:name")
    return found


class Group(click.Group):
    """Unknown commands are answered with the nearest known one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            if close:
                error.message = f"there is no command {args[0]!r}; did you mean {close[0]!r}?"
            raise


pass_context = click.make_pass_decorator(Context)
RATE = click.FloatRange(min=0, min_open=True)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
broker_option = click.option("--broker", help="Kafka, host:port. Default: C360_BROKER.")


AWAY = "Is C360_BROKER (or --broker) right, and does Kafka run there? `c360 doctor` looks closer"
REGISTRY_AWAY = "Is C360_REGISTRY right, and does that registry run?"
SERVICE_AWAY = "Is C360_KEYS right, and does that service run, unsealed? `c360 doctor` looks closer"


def handled(command: Callable[P, T]) -> Callable[P, T]:
    """Errors of ours become a sentence and an exit code; anything else is a bug and keeps its traceback."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except C360Error as error:
            stderr.print(f"[bold red]c360:[/] {_escaped(str(error))}", highlight=False, soft_wrap=True)
            if isinstance(error, BrokerAway) and args:  # its text is the client's; without a context: no broker yet
                from c360.ops.vault import ServiceAway

                away = SERVICE_AWAY if isinstance(error, ServiceAway) else AWAY
                stderr.print(
                    REGISTRY_AWAY if isinstance(error, RegistryAway) else away, highlight=False, soft_wrap=True
                )
            sys.exit(error.exit_code)

    return run


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def time_text(ms: int) -> str:
    """An epoch in ms as ISO 8601, to the second; the number itself where it is none (a source's own sequence)."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return str(ms)


def set_up_logging(*, level: int = logging.INFO) -> None:
    """Logs to standard error: readable on a terminal, plain lines otherwise."""
    handler: logging.Handler
    if sys.stderr.isatty():
        handler = RichHandler(console=stderr, show_path=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("aiokafka", "faust", "mode", "asyncio", "httpx", "httpx2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
