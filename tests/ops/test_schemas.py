"""`c360 schemas check`: files against their history in git, whatever became of them there; an app's own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from c360 import App, Personal, Projection, Record, count, field
from c360.agents.control import Controls, Logic, encode
from c360.codecs.avro import WriterSchema
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TopicSpec
from c360.errors import BrokerAway, UsageError
from c360.ops.contracts import contracts
from c360.ops.history import history
from c360.ops.retained import replay
from c360.ops.schemas import SEALED, Report, check
from tests.governance import test_doors_in_avro as doors_in_avro
from tests.sources.protobuf.made import framed, order
from tests.sources.registry import FakeRegistry
from tests.sources.test_protobuf import SHOP as PROTO
from tests.sources.test_protobuf import shop as shop_in_protobuf

TEXT, LONG = "string", "long"
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}


def of(kind: Any, name: str = "it", **more: Any) -> Any:
    return {"name": name, "type": kind, **more}


def record(*fields: Any, name: str = "Order", **more: Any) -> Any:
    return {"type": "record", "name": name, "namespace": "shop", "fields": [*fields], **more}


class Repository:
    """One of git, with schemas in `schemas/`."""

    def __init__(self, root: Path) -> None:
        self.root, self.schemas = root, root / "schemas"
        self.schemas.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *words: str) -> str:
        who = ("-c", "user.name=kim", "-c", "user.email=kim@shop.example", "-c", "commit.gpgsign=false")
        done = subprocess.run(
            ["git", *who, *words], cwd=self.root, capture_output=True, text=True, check=False, env=self.environment()
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def environment(self) -> dict[str, str]:
        return {"PATH": "/usr/local/bin:/usr/bin:/bin", "GIT_CONFIG_GLOBAL": "/dev/null", "HOME": str(self.root)}

    def write(self, name: str, schema: Any) -> None:
        text = schema if isinstance(schema, str) else json.dumps(schema, indent=1)
        path = self.schemas / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def commit(self, **schemas: Any) -> str:
        """What is there, with these files as they are to be; its id."""
        for name, schema in schemas.items():
            self.write(f"{name}.avsc", schema)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "x")
        return self.git("rev-parse", "HEAD")

    def check(self, revision: str | None = None, directory: Path | None = None) -> Report:
        chosen = directory or self.schemas
        return check(chosen, history(chosen, revision))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "shop")


def told(report: Report) -> list[tuple[str, str, list[str]]]:
    """File, rule, beginnings of the commits that it shows against."""
    return [(Path(f.path).name, f.rule, [one[:9] for one in f.against]) for f in report.findings]


def test_a_file_is_compared_with_all_that_it_was(repository: Repository) -> None:
    """Also where it reads the last version: the first one lacks the field, whose default is gone again."""
    first = repository.commit(order=record(of(TEXT, "id")))
    repository.commit(order=record(of(TEXT, "id"), of(LONG, default=0)))
    repository.commit(order=record(of(TEXT, "id"), of(LONG)))
    report = repository.check()
    assert told(report) == [("order.avsc", "compatibility", [first[:9]])]
    assert (report.schemas, report.versions, report.errors, report.warnings) == (1, 2, 1, 0)


def test_what_is_not_committed_yet_is_what_reads(repository: Repository) -> None:
    first = repository.commit(order=record(of(MILLIS)))
    assert repository.check().findings == []
    repository.write("order.avsc", record(of(MICROS)))
    assert told(repository.check()) == [("order.avsc", "unit", [first[:9]])]


def test_a_difference_is_told_once_with_the_versions_that_it_shows_against(repository: Repository) -> None:
    old = [repository.commit(order=record(of(MILLIS), doc=str(n))) for n in range(3)]
    repository.commit(order=record(of(MICROS)))
    report = repository.check()
    assert told(report) == [("order.avsc", "unit", [one[:9] for one in reversed(old)])]
    (finding,) = report.findings
    assert finding.line.startswith(f"{repository.schemas}/order.avsc: error: unit at it: timestamp-millis became")
    assert finding.line.endswith("and 2 more]")
    assert "\n" not in finding.line


def test_a_range_begins_with_what_was_there_at_its_first(repository: Repository) -> None:
    before = repository.commit(order=record(of(DAY_TEXT)))
    then = repository.commit(order=record(of(MILLIS)))
    repository.commit(order=record(of(MICROS)))
    assert {rule for _, rule, _ in told(repository.check())} == {"compatibility", "unit"}
    assert told(repository.check(f"{then}..")) == [("order.avsc", "unit", [then[:9]])]
    assert told(repository.check(f"{then}..HEAD")) == [("order.avsc", "unit", [then[:9]])]
    assert repository.check("HEAD..").findings == []
    assert told(repository.check(before)) == [("order.avsc", "compatibility", [before[:9]])]


DAY_TEXT = {"type": "string", "doc": "2026-11-28"}


def test_a_renamed_file_keeps_its_history_also_where_its_old_name_is_used_again(repository: Repository) -> None:
    many = [of(TEXT, f"f{n}", default="") for n in range(9)]
    first = repository.commit(old=record(of(MILLIS), *many))
    repository.git("mv", "schemas/old.avsc", "schemas/order.avsc")
    repository.commit()
    repository.commit(old=record(of("boolean", "other"), name="Another"))
    repository.commit(order=record(of(MICROS), *many))
    assert told(repository.check()) == [("order.avsc", "unit", [first[:9]])]
    (repository.root / "elsewhere").mkdir()
    repository.git("mv", "schemas/order.avsc", "elsewhere/order.avsc")
    repository.commit()
    there = repository.check(directory=repository.root / "elsewhere")
    assert told(there) == [("order.avsc", "unit", [first[:9]])]
    assert [(f.rule, Path(f.path).name) for f in repository.check().findings] == [("deleted", "order.avsc")]


def test_both_sides_of_a_merge_are_history(repository: Repository) -> None:
    repository.commit(order=record(of(TEXT, "id")))
    repository.git("checkout", "-q", "-b", "side")
    side = repository.commit(order=record(of(TEXT, "id"), of(MILLIS, default=0)), other=record(of(TEXT), name="Other"))
    repository.git("checkout", "-q", "main")
    repository.commit(third=record(of(TEXT), name="Third"))
    repository.git("merge", "-q", "--no-edit", "side")
    repository.commit(order=record(of(TEXT, "id"), of(MICROS, default=0)))
    assert told(repository.check()) == [("order.avsc", "unit", [side[:9]])]
    assert repository.check().schemas == 3


def test_a_version_that_was_taken_back_on_a_side_was_there(repository: Repository) -> None:
    """The log of the file, as git shows it, leaves that side out: it changed nothing."""
    repository.commit(order=record(of(MICROS)))
    repository.git("checkout", "-q", "-b", "side")
    side = repository.commit(order=record(of(MILLIS)))
    repository.commit(order=record(of(MICROS)))
    repository.git("checkout", "-q", "main")
    repository.commit(third=record(of(TEXT), name="Third"))
    repository.git("merge", "-q", "--no-edit", "side")
    assert told(repository.check()) == [("order.avsc", "unit", [side[:9]])]


def test_what_only_a_merge_made_of_both_sides_was_there(repository: Repository) -> None:
    repository.commit(order=record(of(MICROS)))
    repository.git("checkout", "-q", "-b", "side")
    repository.commit(order=record(of(MICROS), doc="side"))
    repository.git("checkout", "-q", "main")
    repository.commit(order=record(of(MICROS), doc="main"))
    repository.git("merge", "-q", "-s", "ours", "--no-commit", "side")
    merge = repository.commit(order=record(of(MILLIS)))
    repository.commit(order=record(of(MICROS)))
    assert told(repository.check()) == [("order.avsc", "unit", [merge[:9]])]


def test_a_deleted_file_is_a_warning_and_comes_back_with_its_history(repository: Repository) -> None:
    first = repository.commit(order=record(of(MILLIS)), other=record(of(TEXT), name="Other"))
    repository.git("rm", "-q", "schemas/order.avsc")
    repository.commit()
    report = repository.check()
    assert told(report) == [("order.avsc", "deleted", [first[:9]])]
    assert (report.errors, report.warnings) == (0, 1)
    assert repository.check("HEAD..").findings == []
    repository.commit(order=record(of(MICROS)))
    assert told(repository.check()) == [("order.avsc", "unit", [first[:9]])]


def test_types_of_other_files_are_compared_as_they_were_at_the_time(repository: Repository) -> None:
    """Only the file that is referred to is changed: what uses it cannot read its records, either."""
    first = repository.commit(order=record(of("Money", "paid")), money=record(of(MILLIS), name="Money"))
    assert repository.check().findings == []
    repository.commit(money=record(of(MICROS), name="Money"))
    assert told(repository.check()) == [
        ("money.avsc", "unit", [first[:9]]), ("order.avsc", "unit", [first[:9]]),
    ]  # fmt: skip
    repository.git("rm", "-q", "schemas/money.avsc")
    report = repository.check()
    assert [(name, rule) for name, rule, _ in told(report)] == [
        ("money.avsc", "deleted"), ("order.avsc", "not-a-schema"),
    ]  # fmt: skip
    assert "uses shop.Money, which nothing defines" in report.findings[1].message


@pytest.mark.parametrize("text", ["", "{", '{"type": "record"}', "\x00\xff", "[" * 5000])
def test_a_file_that_is_no_schema_is_a_finding_and_the_others_are_checked(repository: Repository, text: str) -> None:
    first = repository.commit(order=record(of(MILLIS)), broken=record(of(TEXT), name="Broken"))
    repository.write("order.avsc", record(of(MICROS)))
    (repository.schemas / "broken.avsc").write_bytes(text.encode("latin-1"))
    assert told(repository.check()) == [("broken.avsc", "not-a-schema", []), ("order.avsc", "unit", [first[:9]])]


def test_what_was_broken_in_history_is_a_note(repository: Repository) -> None:
    repository.commit(order="{")
    repository.commit(order="")
    repository.commit(order=record(of(TEXT)))
    report = repository.check()
    assert (report.findings, report.versions, len(report.notes)) == ([], 0, 2)


def test_names_that_need_quoting_are_files_like_others(repository: Repository) -> None:
    names = ["a b", "é", 'q"uote', "new\nline", "dash-"]
    (repository.schemas / "deep").mkdir()
    first = repository.commit(**{f"deep/{name}": record(of(MILLIS)) for name in names})
    for name in names:
        repository.write(f"deep/{name}.avsc", record(of(MICROS)))
    found = told(repository.check())
    assert sorted(found) == sorted((f"{name}.avsc", "unit", [first[:9]]) for name in names)
    assert all("\n" not in finding.line for finding in repository.check().findings)


def test_a_key_s_schema_is_known_by_its_file_s_name(repository: Repository) -> None:
    first = repository.commit(**{"raw.orders-key": record(of(TEXT))})
    repository.write("raw.orders-key.avsc", record(of(TEXT), of(TEXT, "b", default="")))
    assert told(repository.check()) == [("raw.orders-key.avsc", "key", [first[:9]])]


# --------------------------------------------------------------------------------------------------- what git is not
def test_outside_of_a_repository_it_says_that_nothing_is_known_of_before(tmp_path: Path) -> None:
    (tmp_path / "a.avsc").write_text('"string"')
    report = check(tmp_path, history(tmp_path, None))
    assert (report.findings, report.schemas) == ([], 1)
    assert "is in no git repository" in report.notes[0]
    with pytest.raises(UsageError, match="is in no git repository"):
        history(tmp_path, "HEAD")


def test_a_repository_without_commits_has_no_history(repository: Repository) -> None:
    repository.write("order.avsc", record(of(TEXT)))
    assert (repository.check().findings, repository.check().versions) == ([], 0)


@pytest.mark.parametrize(
    ("revision", "said"),
    [
        ("nowhere", "there is no revision nowhere here"),
        ("--all", "there is no revision --all here"),
        ("HEAD..nowhere", "there is no revision nowhere here"),
        ("HEAD...HEAD", "write A..B"),
        ("..HEAD", "write A..B"),
        ("HEAD:schemas", "there is no revision HEAD:schemas here"),
    ],
)
def test_a_revision_that_does_not_exist_is_wrong_use(repository: Repository, revision: str, said: str) -> None:
    repository.commit(order=record(of(TEXT)))
    with pytest.raises(UsageError, match=said):
        history(repository.schemas, revision)


def test_a_shallow_clone_is_refused_as_it_would_find_nothing(repository: Repository, tmp_path: Path) -> None:
    repository.commit(order=record(of(MILLIS)))
    before = repository.commit(order=record(of(MILLIS), doc="x"))
    repository.commit(order=record(of(MICROS)))
    clone = tmp_path / "clone" / "schemas"

    def cloned(depth: int) -> None:
        subprocess.run(["rm", "-rf", clone.parent], check=True)
        repository.git("clone", "-q", "--depth", str(depth), f"file://{repository.root}", str(clone.parent))

    cloned(1)
    for revision in (None, "HEAD", f"{before}.."):
        with pytest.raises(UsageError, match="fetch-depth: 0"):
            history(clone, revision)
    cloned(2)
    with pytest.raises(UsageError, match="fetch-depth: 0"):
        history(clone, None)
    assert told(check(clone, history(clone, f"{before}.."))) == [("order.avsc", "unit", [before[:9]])]


def test_a_repository_that_git_cannot_read_is_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: /nowhere\n")
    (tmp_path / "a.avsc").write_text('"string"')
    with pytest.raises(UsageError, match="git rev-parse failed"):
        history(tmp_path, None)


def test_without_git_it_is_said_what_is_missing(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="git is not installed"):
        history(repository.schemas, None)


def test_in_a_hook_of_git_it_looks_at_the_repository_of_the_directory(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = repository.commit(order=record(of(MILLIS)))
    repository.write("order.avsc", record(of(MICROS)))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", ".git/index")
    assert told(repository.check()) == [("order.avsc", "unit", [first[:9]])]


def test_links_are_what_they_lead_to(repository: Repository, tmp_path: Path) -> None:
    first = repository.commit(order=record(of(MILLIS)))
    repository.write("order.avsc", record(of(MICROS)))
    (repository.root / "more").mkdir()
    (tmp_path / "outside.avsc").write_text(json.dumps(record(of(TEXT), name="Outside")))
    (repository.root / "more" / "link.avsc").symlink_to(repository.schemas / "order.avsc")
    (repository.root / "more" / "outside.avsc").symlink_to(tmp_path / "outside.avsc")
    (repository.root / "more" / "nowhere.avsc").symlink_to(tmp_path / "nowhere.avsc")
    report = repository.check(directory=repository.root / "more")
    assert told(report) == [("link.avsc", "unit", [first[:9]])]
    assert report.schemas == 2


def test_what_no_terminal_should_see_is_shown_as_text(repository: Repository) -> None:
    """Names and texts are of whoever wrote them."""
    (repository.schemas / os.fsdecode(b"\xff\x1b[31m.avsc")).write_text(
        json.dumps(record(of(TEXT, **{"c360.class": "\ud800\x07"})))
    )
    report = repository.check()
    assert [f.rule for f in report.findings] == ["class"]
    (line,) = (f.line for f in report.findings)
    assert line.isprintable()
    assert r"\x1b[31m.avsc" in line
    json.dumps(report.to_json(), ensure_ascii=False).encode()


def test_a_directory_without_schemas_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no \*\.avsc in"):
        check(tmp_path, None)
    with pytest.raises(UsageError, match="there is no directory"):
        check(tmp_path / "no", None)


def test_a_link_in_place_of_a_directory_is_followed(repository: Repository, tmp_path: Path) -> None:
    first = repository.commit(order=record(of(MILLIS)))
    repository.write("order.avsc", record(of(MICROS)))
    link = tmp_path / "link"
    link.symlink_to(repository.schemas)
    report = repository.check(directory=link)
    assert told(report) == [("order.avsc", "unit", [first[:9]])]
    assert report.findings[0].path == str(link / "order.avsc")


# ---------------------------------------------------------------------------------------------------------- the app
WHO = record(of(TEXT, "id"), of({"type": TEXT, "c360.class": "personal"}, "email"), of(LONG, "at"), name="Who")


def shop(email: Any, **source: Any) -> App:
    app = App("shop")

    @app.identifier("crm", priority=1, unique=True)
    class Crm(str): ...

    @app.source("who", format="avro", event_id="id", subject="id", **source)
    class Who(Record):
        id: Crm
        mail: email = field("email")

    @app.projection("customer")
    class Customer(Projection):
        seen: int = count(Who)

    return app


def test_a_source_s_schema_is_checked_and_is_the_file_that_has_the_same(repository: Repository) -> None:
    first = repository.commit(who={**WHO, "fields": [*WHO["fields"][:2], of(MILLIS, "at")]})
    repository.write("who.avsc", WHO)
    plan = shop(Personal[str], schema=WHO).plan()
    report = check(repository.schemas, history(repository.schemas, None), plan, "shop:app")
    assert told(report) == [("who.avsc", "logical-type", [first[:9]])]
    assert [f.subject for f in report.findings] == ["who-value"]
    alone = check(None, None, plan, "shop:app")
    assert (alone.findings, alone.schemas) == ([], 1)


def test_of_protobuf_it_says_who_checks_it() -> None:
    report = check(None, None, shop_in_protobuf().plan(), "shop:app")
    assert (report.findings, report.schemas) == ([], 0)
    (note,) = report.notes
    assert note.startswith("orders: Protobuf is not compared here: its compatibility is checked by the registry")
    assert "buf breaking" in note


def test_what_a_schema_says_is_personal_is_personal_in_the_app() -> None:
    (found,) = check(None, None, shop(str, schema=WHO).plan(), "shop:app").findings
    assert (found.path, found.subject, found.rule, found.place) == ("shop:app who", "who-value", "class", "email")
    assert "write Personal[…] there" in found.message
    assert "Who.mail" in found.message


def test_what_was_sealed_when_workers_ran_may_not_be_in_the_open() -> None:
    """Of any version: another one would show what the one before kept sealed."""
    logic = {
        b"logic/customer@1": ["projection/3", "sealed: Who.gone, Who.mail"],
        b"logic/customer@2": ["sealed: Who.mail"],
        b"logic/govern": ["sealed by nobody"],
    }
    controls = Controls({key: encode(Logic(lines)) for key, lines in logic.items()} | {b"live/customer": b"?"})
    found = check(None, None, shop(str, schema=record(of(TEXT))).plan(), "shop:app", controls=controls).findings
    assert [(f.path, f.rule, f.severity, f.place, f.against) for f in found] == [
        ("shop:app who", "class", "error", "mail", ("customer@1", "customer@2")),
    ]
    assert check(None, None, shop(Personal[str], schema=WHO).plan(), "shop:app", controls=controls).findings == []


def test_the_lines_of_a_plan_say_what_is_sealed() -> None:
    plan = doors_in_avro.shop().plan()
    said = {agent.name: [line for line in agent.logic if line.startswith(SEALED)] for agent in plan.agents}
    assert said["customer@3"] == [f"{SEALED}Order.name"]


def test_an_app_without_schemas_has_nothing_to_check() -> None:
    with pytest.raises(UsageError, match="no source of the app says schema="):
        check(None, None, shop(str).plan(), "shop:app")


# ------------------------------------------------------------------------------------------------------------- ours
def test_our_own_contracts_read_what_they_wrote() -> None:
    ours = Path(__file__).parents[2] / "schemas"
    try:
        past = history(ours, None)
    except UsageError as error:
        pytest.skip(str(error))
    if past is None or not past.commits:
        pytest.skip("the history of this checkout is not here")
    assert check(ours, past).findings == []


# -------------------------------------------------------------------------------------------------------- registry
class FakePublished:
    """A registry in memory. Numbers of versions are given in order, from 1."""

    def __init__(self, default: str | None = "NONE") -> None:
        self.known: dict[str, list[tuple[int, WriterSchema]]] = {}
        self.levels: dict[str, str] = {}
        self.default = default

    def publish(self, subject: str, schema: Any, kind: Any = "AVRO", level: str | None = "BACKWARD_TRANSITIVE") -> None:
        known = self.known.setdefault(subject, [])
        known.append((len(known) + 1, WriterSchema(kind, json.dumps(schema))))
        if level is not None:
            self.levels[subject] = level

    def subjects(self) -> list[str]:
        return [*self.known]

    def versions(self, subject: str) -> list[tuple[int, WriterSchema]]:
        return self.known[subject]

    def level(self, subject: str) -> str | None:
        return self.levels.get(subject)

    def default_level(self) -> str | None:
        return self.default


@pytest.fixture
def registry() -> FakePublished:
    return FakePublished()


@pytest.mark.parametrize("subject", ["order", "order-value", "shop.Order"])
def test_a_file_is_compared_with_all_versions_of_its_subject(
    tmp_path: Path, registry: FakePublished, subject: str
) -> None:
    (tmp_path / "order.avsc").write_text(json.dumps(record(of(TEXT, "id"), of(LONG))))
    registry.publish(subject, record(of(TEXT, "id")))
    registry.publish(subject, record(of(TEXT, "id"), of(LONG, default=0)))
    report = check(tmp_path, None, registry=registry)
    assert [(f.subject, f.rule, f.against) for f in report.findings] == [
        (subject, "compatibility", (f"version 1 of {subject}",)),
    ]  # fmt: skip
    assert report.versions == 2


def test_versions_of_the_registry_are_told_the_newest_first(tmp_path: Path, registry: FakePublished) -> None:
    (tmp_path / "order.avsc").write_text(json.dumps(record(of(MICROS))))
    for doc in "abc":
        registry.publish("order", record(of(MILLIS), doc=doc))
    (found,) = check(tmp_path, None, registry=registry).findings
    assert found.against == ("version 3 of order", "version 2 of order", "version 1 of order")


def test_versions_of_git_and_of_the_registry_are_told_together(repository: Repository, registry: FakePublished) -> None:
    first = repository.commit(order=record(of(MILLIS)))
    repository.write("order.avsc", record(of(MICROS)))
    registry.publish("order-value", record(of(MILLIS)))
    (found,) = check(repository.schemas, history(repository.schemas, None), registry=registry).findings
    assert [one.split()[0] for one in found.against] == [first[:9], "version"]


@pytest.mark.parametrize(
    ("level", "default", "found"),
    [
        ("BACKWARD_TRANSITIVE", "NONE", []),
        ("FULL_TRANSITIVE", "NONE", []),
        (None, "BACKWARD_TRANSITIVE", []),
        (None, "NONE", ["level"]),
        (None, None, ["level"]),
        ("NONE", "BACKWARD_TRANSITIVE", ["level"]),
        ("BACKWARD", "NONE", ["level"]),
        ("FORWARD_TRANSITIVE", "NONE", ["level"]),
    ],
)
def test_a_subject_must_ask_to_read_all_that_there_is(
    tmp_path: Path, level: str | None, default: str | None, found: list[str]
) -> None:
    (tmp_path / "order.avsc").write_text(json.dumps(record(of(TEXT))))
    registry = FakePublished(default)
    registry.publish("order", record(of(TEXT)), level=level)
    report = check(tmp_path, None, registry=registry)
    assert [f.rule for f in report.findings] == found
    assert all(f.severity == "error" and "set BACKWARD_TRANSITIVE" in f.message for f in report.findings)


def test_what_the_registry_does_not_have_is_a_warning_and_what_cannot_be_compared_is_told(
    tmp_path: Path, registry: FakePublished
) -> None:
    (tmp_path / "order.avsc").write_text(json.dumps(record(of(TEXT))))
    report = check(tmp_path, None, registry=registry)
    assert [(f.rule, f.severity) for f in report.findings] == [("unregistered", "warning")]
    assert "order or order-value or shop.Order" in report.findings[0].message
    registry.publish("order", {"type": "object"}, kind="JSON")
    registry.publish("order", {"type": "record"})
    report = check(tmp_path, None, registry=registry)
    assert [(f.rule, f.severity) for f in report.findings] == [("kind", "error")]
    assert report.notes[-1].startswith("version 2 of order is not compared with: it is no Avro schema")


def test_an_app_s_schemas_and_the_keys_of_its_topics_are_compared(registry: FakePublished) -> None:
    plan = shop(Personal[str], schema=WHO).plan()
    registry.publish("who-value", {**WHO, "fields": [*WHO["fields"][:2], of(MILLIS, "at")]})
    registry.publish("who-key", record(of(TEXT), name="Key"))
    registry.publish("who-key", record(of(TEXT, doc="x"), name="Key"))
    found = check(None, None, plan, "shop:app", registry).findings
    assert [(f.path, f.subject, f.rule, f.against) for f in found] == [
        ("shop:app who", "who-value", "logical-type", ("version 1 of who-value",)),
        ("shop:app who", "who-key", "key", ("version 1 of who-key",)),
    ]


def test_what_doors_write_in_avro_is_compared_with_what_they_wrote(registry: FakePublished) -> None:
    """The class of a name was lost in the app: views of before have it in the open then."""
    plan = doors_in_avro.shop().plan()
    for written in contracts(plan):
        registry.publish(written.subject, json.loads(written.text.replace('"personal"', '"sensitive"')))
    found = check(None, None, plan, "shop:app", registry, doors=True).findings
    view = next(written for written in contracts(plan) if '"personal"' in written.text)
    assert [(f.path, f.subject, f.rule, f.place) for f in found] == [
        (f"shop:app {view.door}", view.subject, "class", "attributes.name"),
    ]
    assert check(None, None, plan, "shop:app", FakePublished(), doors=True).warnings == len(contracts(plan))


# ---------------------------------------------------------------------------------------------------------- replay
def test_retained_messages_in_protobuf_are_decoded_as_govern_does() -> None:
    asked, cluster, plan = FakeRegistry(), MemoryCluster(), shop_in_protobuf().plan()
    cluster.admin().create([TopicSpec("orders", 1)])
    good = asked.publish("orders-value", PROTO.read_text(), "PROTOBUF")
    avro = asked.register(WHO)
    producer = cluster.producer()
    value = framed(order(1), good)
    producer.produce("orders", None, value, 0, [])
    producer.produce("orders", None, value[6:], 0, [("__value_schema_id", value[:6])])
    producer.produce("orders", None, framed(order(1), avro), 0, [])
    producer.flush()
    found, notes = replay(plan, cluster, asked)
    assert notes == []
    assert {(r.sample.schema, r.sample.records, r.reason) for r in found} == {(good, 2, None), (avro, 1, "schema")}


def test_one_record_of_every_schema_that_is_retained_is_decoded_as_govern_does() -> None:
    plain = [of(TEXT, "id"), of(TEXT, "email"), of(LONG, "at")]
    asked, cluster, plan = FakeRegistry(), MemoryCluster(), shop(Personal[str], schema=WHO).plan()
    cluster.admin().create([TopicSpec("who", 2)])
    good, unread = asked.register(record(*plain, name="Who")), asked.register(record(*plain[1:], name="Who"))
    producer = cluster.producer()

    def send(partition: int, value: bytes | None, *headers: tuple[str, bytes]) -> None:
        producer.produce("who", None, value, partition, [*headers])

    said = {"id": "7", "email": "x", "at": 1}
    send(0, asked.write(good, said))
    send(0, None)
    send(0, asked.write(unread, said))
    send(1, asked.write(unread, said))
    send(1, asked.data(good, said), ("__value_schema_id", b"\0" + good.to_bytes(4, "big")))
    send(1, b"\0\0\0\0\x63" + asked.data(good, said))
    send(1, b'{"id": 7}')
    producer.flush()
    told: list[tuple[str, int, int | None]] = []
    found, notes = replay(plan, cluster, asked, lambda *said: told.append(said))
    assert notes == []
    assert {(r.sample.schema, r.sample.records, r.sample.tp.partition, r.sample.offset, r.reason) for r in found} == {
        (good, 2, 0, 0, None), (unread, 2, 0, 2, "not-avro"), (99, 1, 1, 2, "unknown-schema"), (None, 1, 1, 3, "no-schema-id"),
    }  # fmt: skip
    assert told[-1] == ("who", 7, 7)
    report = check(None, None, plan, "shop:app", replayed=found)
    assert [(f.rule, f.subject, f.against) for f in report.findings] == [
        ("replay", "who-value", (f"schema {unread}",)),
        ("replay", "who-value", ("schema 99",)),
        ("replay", "who-value", ("no schema",)),
    ]
    assert f"2 retained records are of schema {unread}, and the one at 0/2" in report.findings[0].message
    assert report.errors == 3


def test_rows_in_avro_are_decoded_and_those_in_json_are_not_of_any_schema() -> None:
    app = App("shop")

    @app.identifier("crm", priority=1, unique=True)
    class Crm(str): ...

    @app.cdc("customers", key="id", subject="id")
    class Row(Record):
        id: Crm

    @app.projection("customer")
    class Customer(Projection):
        seen: int = count(Row)

    asked, cluster = FakeRegistry(), MemoryCluster()
    number = asked.register(record(of(TEXT, "nothing")))
    cluster.admin().create([TopicSpec("customers", 1)])
    producer = cluster.producer()
    for value in (b'{"op": "c"}', asked.write(number, {"nothing": "x"})):
        producer.produce("customers", None, value, 0)
    producer.flush()
    found, _ = replay(app.plan(), cluster, asked)
    assert [(r.sample.schema, r.sample.offset, r.reason is None) for r in found] == [(number, 1, False)]


def test_a_topic_that_is_not_there_is_a_note_and_a_registry_that_is_away_is_no_misfit() -> None:
    asked, cluster, plan = FakeRegistry(), MemoryCluster(), shop(Personal[str]).plan()
    assert replay(plan, cluster, asked) == ([], ["who: there is no such topic yet"])
    number = asked.register(WHO)
    cluster.admin().create([TopicSpec("who", 1)])
    producer = cluster.producer()
    producer.produce("who", None, asked.write(number, {"id": "7", "email": "x", "at": 1}), 0)
    producer.flush()
    asked.away = True
    with pytest.raises(BrokerAway, match="away"):
        replay(plan, cluster, asked)
