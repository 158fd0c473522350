"""`c360 schemas check`: schemas of now against the versions they had, in git and in the registry, and against what still lies
in the raw topics.

    files of a directory, and what sources say by schema=      what reads
    git history, versions of the subject in the registry       what wrote
    one record of every schema id that a raw topic retains     what was written

Rules are in `c360.codecs.compatibility`; here they get what they compare, and findings are told of files and subjects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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
from c360.ops.history import Commit, Gone, History
from c360.plan import Plan, class_of_field

OTHER_RULES: Mapping[str, Severity] = {"not-a-schema": "error", "deleted": "warning"}
KEY = "-key"  # ends the subject, or the file's name, of a schema of keys


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
        line = f"{where}{of}: {self.message}{since}{more}{']' if since else ''}"
        return "\\n".join(line.splitlines())


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

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        return len(self.findings) - self.errors

    def to_json(self) -> dict[str, Any]:
        return {
            "errors": self.errors,
            "warnings": self.warnings,
            "schemas": self.schemas,
            "versions": self.versions,
            "findings": [
                {
                    "path": f.path, "subject": f.subject, "rule": f.rule, "severity": f.severity, "place": f.place,
                    "message": f.message, "against": list(f.against),
                }
                for f in self.findings
            ],
            "notes": self.notes,
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


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """By path; errors first."""
    return sorted(
        findings, key=lambda f: (f.path, f.severity != "error", [*RULES, *OTHER_RULES].index(f.rule), f.place)
    )


def check(directory: Path | None, past: History | None, plan: Plan | None = None, name: str = "") -> Report:
    """`past`: of the directory's repository; None: it is in none. `plan`, `name`: of the app, if there is one."""
    report = Report()
    contracts: list[Contract] = []
    if directory is not None:
        contracts, report.findings = of_directory(directory)
    if plan is not None:
        contracts = of_app(plan, name, contracts)
        report.findings += of_classes(plan, name)
    if not contracts and not report.findings:
        raise UsageError(
            "there is nothing to check: no source of the app says schema=; say --dir, or [tool.c360] schemas"
        )
    report.schemas = len(contracts)
    report.findings += of_themselves(contracts)
    if directory is not None and past is None:
        report.notes.append(f"{directory} is in no git repository: no earlier versions of its files are known")
    elif directory is not None and past is not None:
        versions, notes = versions_in_git(contracts, directory, past)
        report.notes += notes
        for contract in contracts:
            if contract.file is not None:
                report.versions += len(versions[contract.path])
                report.findings += compared(contract, versions[contract.path])
        report.findings += deleted(past.gone(files_of(directory), directory), directory)
    report.findings = in_order(report.findings)
    return report
