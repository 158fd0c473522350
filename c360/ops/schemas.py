"""`c360 schemas check`: schemas of now against the versions they had, in git and in the registry, and against what still lies
in the raw topics.

    files of a directory, and what sources say by schema=      what reads
    git history, versions of the subject in the registry       what wrote
    one record of every schema id that a raw topic retains     what was written

Rules are in `c360.codecs.compatibility`; here they get what they compare, and findings are told of files and subjects.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from c360.agents.control import Controls, logic_key
from c360.codecs.avro import WriterSchema
from c360.codecs.compatibility import (
    CLASSES,
    RULES,
    NotASchema,
    Schema,
    Severity,
    classes_said,
    compare,
    defined,
    inlined,
    parsed,
    unknown_classes,
    wanted,
)
from c360.codecs.record import FieldInfo, Record, fields_of
from c360.declare import Source
from c360.errors import UsageError
from c360.ops.contracts import ENOUGH, LEVEL
from c360.ops.contracts import contracts as written_by
from c360.ops.history import Commit, Gone, History
from c360.ops.retained import Replayed
from c360.plan import Plan, class_of_field, sealed_of

OTHER_RULES: Mapping[str, Severity] = {
    "not-a-schema": "error",
    "level": "error",
    "kind": "error",
    "replay": "error",
    "deleted": "warning",
    "unregistered": "warning",
}
OF_PROTOBUF = (
    "{}: Protobuf is not compared here: its compatibility is checked by the registry, which is to ask"
    " BACKWARD_TRANSITIVE, and by `buf breaking` over the .proto files"
)
SEALED = "sealed: "  # begins a line of what decides a projection (c360.plan.logic_of)
KEY = "-key"  # ends the subject, or the file's name, of a schema of keys


def shown(text: str) -> str:
    """One line that any terminal takes: names of files and what stands in them are others'."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `against`: the versions that it shows against, the newest first; () of the schema itself."""

    path: str
    subject: str | None
    rule: str
    severity: Severity
    place: str
    message: str
    against: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        where = f"{self.path}: {self.severity}: {self.rule}" + (f" at {self.place}" if self.place else "")
        of = f" ({self.subject})" if self.subject else ""
        since = f" [against {self.against[0]}" if self.against else ""
        more = f" and {len(self.against) - 1} more" if len(self.against) > 1 else ""
        return shown(f"{where}{of}: {self.message}{since}{more}{']' if since else ''}")


@dataclass(frozen=True)
class Contract:
    """A schema that reads. `file`: None where only the app has it; `subject`: where the registry has its versions, if known."""

    path: str
    schema: Schema
    file: Path | None = None
    subject: str | None = None

    @property
    def key(self) -> bool:
        return (self.subject or "").endswith(KEY) or (self.file is not None and self.file.stem.endswith(KEY))


@dataclass(frozen=True)
class Version:
    """A schema that wrote. `of`: for people, where it is from."""

    of: str
    schema: Schema


@dataclass
class Report:
    """What was looked at, and what is wrong."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    schemas: int = 0
    versions: int = 0
    replayed: list[Replayed] = field(default_factory=list)

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        return len(self.findings) - self.errors

    @property
    def looked_at(self) -> list[str]:
        """Where nothing is wrong."""
        lines = [f"{self.schemas} schemas read what {self.versions} earlier versions wrote"]
        if self.replayed:
            records = sum(one.sample.records for one in self.replayed)
            lines.append(
                f"{records} retained records are of {len(self.replayed)} schemas, and the first of each is read"
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        return {
            "errors": self.errors,
            "warnings": self.warnings,
            "schemas": self.schemas,
            "versions": self.versions,
            "findings": [
                {
                    "path": shown(f.path), "subject": f.subject, "rule": f.rule, "severity": f.severity,
                    "place": shown(f.place), "message": shown(f.message), "against": list(f.against),
                }
                for f in self.findings
            ],
            "replayed": [
                {
                    "topic": r.topic, "schema": r.sample.schema, "records": r.sample.records,
                    "partition": r.sample.tp.partition, "offset": r.sample.offset, "reason": r.reason,
                }
                for r in self.replayed
            ],
            "notes": [*map(shown, self.notes)],
        }  # fmt: skip


# ----------------------------------------------------------------------------------------------------- what reads
def of_directory(directory: Path) -> tuple[list[Contract], list[Finding]]:
    """The schemas of all *.avsc in and below it, each with what it refers to in the others. Raises UsageError."""
    if not directory.is_dir():
        raise UsageError(f"there is no directory {directory}; say --dir, or [tool.c360] schemas")
    files = files_of(directory)
    if not files:
        raise UsageError(f"there is no *.avsc in {directory}; say --dir, or [tool.c360] schemas")
    contracts: list[Contract] = []
    findings: list[Finding] = []
    read: dict[Path, Any] = {}
    for file in files:
        try:
            read[file] = parsed(file.read_bytes())
        except (NotASchema, OSError) as error:
            why = str(error) if isinstance(error, NotASchema) else f"it cannot be read: {error.strerror}"
            findings.append(_of_itself(str(file), "not-a-schema", why))
    known = _known(read.values())
    for file, said in read.items():
        try:
            contracts.append(Contract(str(file), Schema(inlined(said, known)), file))
        except NotASchema as error:
            findings.append(_of_itself(str(file), "not-a-schema", str(error)))
    return contracts, findings


def files_of(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*.avsc") if path.is_file())


def _known(schemas: Iterable[Any]) -> dict[str, Any]:
    """All named types, by full name; of what is no schema none."""
    found: dict[str, Any] = {}
    for said in schemas:
        try:
            found |= defined(said)
        except NotASchema:
            continue
    return found


def of_app(plan: Plan, name: str, contracts: Sequence[Contract]) -> list[Contract]:
    """What sources read by, beside these: a file with the same schema is the source's, and gets its subject."""
    found = list(contracts)
    for source in plan.sources:
        if source.schema is None:
            continue
        subject = f"{source.topic}-value"
        schema = Schema(parsed(source.schema))
        same = next((c for c in found if c.file is not None and c.schema.text == schema.text), None)
        if same is None:
            found.append(Contract(f"{name} {source.topic}", schema, None, subject))
        elif same.subject is None:
            found[found.index(same)] = replace(same, subject=subject)
        else:
            found.append(replace(same, file=None, subject=subject))
    return found


def of_doors(plan: Plan, name: str) -> list[Contract]:
    """What doors write, where they write Avro."""
    return [Contract(f"{name} {made.door}", Schema(made.schema), None, made.subject) for made in written_by(plan)]


# ------------------------------------------------------------------------------------------------ the schema by itself
def of_themselves(contracts: Iterable[Contract]) -> Iterator[Finding]:
    for contract in contracts:
        for one in unknown_classes(contract.schema):
            yield Finding(contract.path, contract.subject, one.rule, one.severity, one.place, one.message)


def of_classes(plan: Plan, name: str) -> Iterator[Finding]:
    """Values that a source's schema says are about people, and the app's record type does not."""
    for source in plan.sources:
        if source.schema is None:
            continue
        said = list(classes_said(Schema(parsed(source.schema))))
        for declared in source.types:
            for info in fields_of(declared.record):
                yield from _unclassified(plan, name, source, declared.record, info, said)


def _unclassified(
    plan: Plan, name: str, source: Source, record: type[Record], info: FieldInfo, said: Sequence[tuple[str, Any]]
) -> Iterator[Finding]:
    read = _steps(info.path)
    for place, asked in said:
        about = _steps(place)
        within = read[: len(about)] == about or about[: len(read)] == read
        if within and (class_of_field(plan, record, info.name) or 0) < CLASSES.get(asked, 0):
            yield Finding(
                f"{name} {source.topic}", f"{source.topic}-value", "class", "error", place,
                f"the schema says that it is {asked}, and {record.__name__}.{info.name} reads it as less: write"
                f" {asked.title()}[…] there",
            )  # fmt: skip


def _steps(path: str) -> list[str]:
    """Of a place in a schema, or a path in a payload, with items and values of maps alike."""
    steps = path.replace("[]", ".[]").replace("{}", ".{}").split(".")
    return ["[]" if step.isdecimal() else step for step in steps if step]


def _of_itself(path: str, rule: str, message: str, subject: str | None = None) -> Finding:
    return Finding(path, subject, rule, OTHER_RULES[rule], "", message)


# ----------------------------------------------------------------------------------------------------- what wrote
def versions_in_git(
    contracts: Sequence[Contract], directory: Path, past: History
) -> tuple[dict[str, list[Version]], list[str]]:
    """By path of the contract, and notes on what could not be compared with. The newest first, each schema once, with
    the commit that brought it."""
    files = {contract.file: contract for contract in contracts if contract.file is not None}
    found: dict[str, dict[str, Version]] = {contract.path: {} for contract in files.values()}
    reading = _Past(past, directory)
    notes: list[str] = []
    for commit, names in past.names([*files]):
        for file, path in names.items():
            contract = files[file]
            try:
                schema = reading.schema(commit, path)
            except NotASchema as error:
                note = f"{contract.path}: what was committed is not compared with: {error}"
                notes += [] if note in notes else [note]
                continue
            if schema.text != contract.schema.text:
                found[contract.path][schema.text] = Version(commit.said, schema)  # at last the one that brought it
    return {path: [*versions.values()] for path, versions in found.items()}, notes


class _Past:
    """Schemas of commits, with what they referred to then; each content is read once."""

    def __init__(self, past: History, directory: Path) -> None:
        self.contents = past.contents
        root = past.path_of(directory)
        self.below = "" if root == "." else f"{root}/"
        self.parts: dict[str, Any] = {}
        self.wholes: dict[tuple[str, ...], Schema | NotASchema] = {}

    def schema(self, commit: Commit, path: str) -> Schema:
        """Raises NotASchema."""
        blob = commit.files[path]
        said = self._part(blob)
        others: tuple[str, ...] = ()
        if wanted(said):
            others = tuple(sorted({id for p, id in commit.files.items() if p.startswith(self.below)} - {blob}))
        found = self.wholes.get((blob, *others))
        if found is None:
            found = self.wholes[blob, *others] = self._whole(said, others)
        if isinstance(found, NotASchema):
            raise found
        return found

    def _whole(self, said: Any, others: Iterable[str]) -> Schema | NotASchema:
        parts = []
        for other in others:
            try:
                parts.append(self._part(other))
            except NotASchema:
                continue
        try:
            return Schema(inlined(said, _known(parts)))
        except NotASchema as error:
            return error

    def _part(self, blob: str) -> Any:
        if blob not in self.parts:
            try:
                self.parts[blob] = parsed(self.contents.get(blob, b""))
            except NotASchema as error:
                self.parts[blob] = error
        if isinstance(self.parts[blob], NotASchema):
            raise self.parts[blob]
        return self.parts[blob]


def deleted(gone: Iterable[Gone], directory: Path) -> Iterator[Finding]:
    for one in gone:
        path = directory / one.path.relative_to(directory.resolve())
        yield Finding(
            str(path), None, "deleted", OTHER_RULES["deleted"], "",
            "the file is not there any more: records of its topic may be, and nothing checks how they are read",
            (one.last.said,),
        )  # fmt: skip


# --------------------------------------------------------------------------------------- what wrote, by the registry
class Published(Protocol):
    """A registry as whoever compares sees it. All raise RegistryAway, and UsageError where it refuses."""

    def subjects(self) -> Collection[str]:
        """All there are, also those that were deleted and can be brought back: records of them are in topics."""
        ...

    def versions(self, subject: str) -> list[tuple[int, WriterSchema]]:
        """The oldest first, with those that were deleted and can be brought back."""
        ...

    def level(self, subject: str) -> str | None:
        """The compatibility that is asked of a subject; None: it is left to the registry."""
        ...

    def default_level(self) -> str | None:
        """The compatibility that is asked of those."""
        ...


@dataclass
class Looked:
    """What the registry has of a contract, which has its subject now."""

    contract: Contract
    versions: list[Version] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def in_registry(contract: Contract, registry: Published, subjects: Collection[str]) -> Looked:
    names = _names_of(contract)
    subject = next((name for name in names if name in subjects), None)
    if subject is None:
        said = " or ".join(dict.fromkeys(names))
        message = (
            f"the registry has no subject {said}: its versions are not compared with; name the file after its subject"
        )
        return Looked(contract, findings=[_of_itself(contract.path, "unregistered", message, contract.subject)])
    looked = Looked(replace(contract, subject=subject))
    level = registry.level(subject) or registry.default_level()
    if level not in ENOUGH:
        looked.findings.append(_of_itself(
            contract.path, "level", f"{subject} has compatibility {level}, so the registry takes schemas that cannot read all"
            f" that is in the topic: set {LEVEL}", subject,
        ))  # fmt: skip
    for number, schema in registry.versions(subject):
        of = f"version {number} of {subject}"
        if schema.kind != "AVRO":
            message = f"{of} is of kind {schema.kind}: who reads by this schema cannot read it; write to a new topic"
            looked.findings.append(_of_itself(contract.path, "kind", message, subject))
            continue
        try:
            read = _published(schema)
        except NotASchema as error:
            looked.notes.append(f"{of} is not compared with: {error}")
            continue
        if read.text != contract.schema.text:
            looked.versions.insert(0, Version(of, read))
    return looked


def keys_of(plan: Plan, name: str, registry: Published, subjects: Collection[str]) -> list[Contract]:
    """The newest schemas of the keys of raw topics, which nobody else says."""
    found = []
    for source in plan.sources:
        subject = f"{source.topic}{KEY}"
        newest = registry.versions(subject)[-1:] if subject in subjects else []
        for _, schema in newest:
            if schema.kind == "AVRO":
                with suppress(NotASchema):
                    found.append(Contract(f"{name} {source.topic}", _published(schema), None, subject))
    return found


def _published(schema: WriterSchema) -> Schema:
    """Raises NotASchema."""
    return Schema(inlined(parsed(schema.text), _known(parsed(text) for text in schema.references)))


def _names_of(contract: Contract) -> list[str]:
    """What its subject may be called: by the topic, as the file is, or by the record."""
    stem = [] if contract.file is None else [contract.file.stem, f"{contract.file.stem}-value"]
    said = [] if contract.subject is None else [contract.subject]
    record = contract.schema.root.name
    by_topic = [f"{one.removesuffix('-value')}-{record}" for one in said if record]
    return [*said, *stem, *by_topic, *([record] if record else [])]


# ------------------------------------------------------------------------------------------------------- compare
def compared(contract: Contract, versions: Iterable[Version]) -> list[Finding]:
    """What is wrong with reading by the contract what was written by these: each difference once, with where it shows."""
    found: dict[tuple[str, Severity, str, str], list[str]] = {}
    for version in versions:
        try:
            differences = compare(contract.schema, version.schema, key=contract.key)
        except NotASchema as error:
            found.setdefault(("not-a-schema", "error", "", str(error)), []).append(version.of)
            continue
        for one in differences:
            found.setdefault((one.rule, one.severity, one.place, one.message), []).append(version.of)
    return [
        Finding(contract.path, contract.subject, rule, severity, place, message, tuple(dict.fromkeys(against)))
        for (rule, severity, place, message), against in found.items()
    ]


def of_control(plan: Plan, name: str, controls: Controls) -> Iterator[Finding]:
    """Fields that were sealed in profiles, as workers said, and are not any more: records of before have them sealed."""
    fields = {f"{t.name}.{f.name}": s for s in plan.sources for t in s.types for f in fields_of(t.record)}
    sealed = {one for source in plan.sources for one in sealed_of(plan, source)}
    ran = _sealed_then(controls)
    for said in sorted((ran.keys() & fields.keys()) - sealed):
        source = fields[said]
        yield Finding(
            f"{name} {source.topic}", None, "class", RULES["class"], said.partition(".")[2],
            f"{said} was sealed when workers last ran and is in the open now, and the records of before are still about"
            " people: write Personal[…] or Sensitive[…] there", tuple(ran[said]),
        )  # fmt: skip


def _sealed_then(controls: Controls) -> dict[str, list[str]]:
    """By field, as `Type.name`, the agents whose profiles had it sealed."""
    found: dict[str, list[str]] = {}
    before = logic_key("").decode()
    for agent in sorted(
        key.decode().removeprefix(before) for key in controls.values if key.startswith(before.encode())
    ):
        logic = controls.logic(agent)
        for line in [] if logic is None else logic.lines:
            for name in line.removeprefix(SEALED).split(", ") if line.startswith(SEALED) else ():
                found.setdefault(name, []).append(agent)
    return found


def of_replay(replayed: Iterable[Replayed], name: str) -> Iterator[Finding]:
    """Schemas whose retained records govern would put aside."""
    for one in replayed:
        if one.reason is not None:
            sample = one.sample
            of = "no schema" if sample.schema is None else f"schema {sample.schema}"
            yield Finding(
                f"{name} {one.topic}", f"{one.topic}-value", "replay", OTHER_RULES["replay"], "",
                f"{sample.records} retained records are of {of}, and the one at {sample.tp.partition}/{sample.offset} would be"
                f" a dead letter, {one.reason}: {one.message}; change the app so that it reads them",
                (of,),
            )  # fmt: skip


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """By path; errors first."""
    return sorted(
        findings, key=lambda f: (f.path, f.severity != "error", [*RULES, *OTHER_RULES].index(f.rule), f.place)
    )


def check(
    directory: Path | None,
    past: History | None,
    plan: Plan | None = None,
    name: str = "",
    registry: Published | None = None,
    replayed: Sequence[Replayed] = (),
    controls: Controls | None = None,
    *,
    doors: bool = False,
) -> Report:
    """`past`: of the directory's repository; None: it is in none. `plan`, `name`: of the app, if there is one. `registry`:
    whose versions are compared with, too; with `doors` also those of what the app writes in Avro. `replayed`: what became
    of retained records. `controls`: what workers said when they ran. Raises UsageError; RegistryAway.
    """
    report = Report(replayed=[*replayed])
    report.findings += of_replay(replayed, name)
    contracts: list[Contract] = []
    if directory is not None:
        contracts, findings = of_directory(directory)
        report.findings += findings
    if plan is not None:
        contracts = of_app(plan, name, contracts)
        report.findings += of_classes(plan, name)
        report.findings += [] if controls is None else of_control(plan, name, controls)
        report.notes += [OF_PROTOBUF.format(s.topic) for s in plan.sources if s.format == "protobuf"]
    if not contracts and not report.notes and not report.findings and not doors and controls is None:
        raise UsageError(
            "there is nothing to check: no source of the app says schema=; say --dir, or [tool.c360] schemas"
        )
    report.schemas = len(contracts)
    report.findings += of_themselves(contracts)
    versions: dict[str, list[Version]] = {}
    if directory is not None and past is None:
        report.notes.append(f"{directory} is in no git repository: no earlier versions of its files are known")
    elif directory is not None and past is not None:
        versions, notes = versions_in_git(contracts, directory, past)
        report.notes += notes
        report.findings += deleted(past.gone(files_of(directory), directory), directory)
    subjects = [] if registry is None else registry.subjects()
    if registry is not None and plan is not None:
        contracts += [*keys_of(plan, name, registry, subjects), *(of_doors(plan, name) if doors else ())]
    for contract in contracts:
        earlier = versions.get(contract.path, []) if contract.file is not None else []
        if registry is not None:
            looked = in_registry(contract, registry, subjects)
            contract, earlier = looked.contract, earlier + looked.versions
            report.findings += looked.findings
            report.notes += looked.notes
        report.versions += len(earlier)
        report.findings += compared(contract, earlier)
    report.findings = in_order(report.findings)
    return report
