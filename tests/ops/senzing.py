"""An app over Senzing's truth set: people and companies of three lists, one of whose mailboxes belongs to a whole office."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from c360 import App, Projection, Record, count, normalize

app = App("senzing", partitions=2)
TRUTH = "actual_truthset_key.csv"


@app.identifier("record", priority=1, limit=50, hub_at=None)
class RecordId(str): ...


@app.identifier("email", personal=False, normalize=normalize.email)
class Email(str): ...


@app.identifier("phone", personal=False, normalize=normalize.phone("US"))
class Phone(str): ...


@app.identifier("name_born", priority=6)
class NameBorn(str): ...


@app.identifier("born", links=False, limit=1)
class Born(str): ...


@app.identifier("first_name", links=False, limit=2, normalize=normalize.folded)
class FirstName(str): ...


NOTHING_FORBIDS: dict[type[str], dict[str, int]] = {Born: {"limit": 50}, FirstName: {"limit": 50}}
naive = app.identity("naive", changes={**NOTHING_FORBIDS, Email: {"limit": 50}})
hubs = app.identity("hubs", changes={**NOTHING_FORBIDS, Email: {"limit": 50, "hub_at": 10}})


@app.source("lists", subject="record_id")
class Entry(Record):
    record_id: RecordId
    emails: list[Email]
    phones: list[Phone]
    first_name: FirstName | None
    last_name: str | None
    born: Born | None


@app.enrich(Entry)
def name_born(entry: Entry) -> NameBorn | None:
    said = normalize.composite([entry.first_name, entry.last_name, entry.born])
    return None if said is None else NameBorn(said)


@app.projection("person")
class Person(Projection):
    records: int = count(Entry)


def flat(line: str) -> dict[str, Any]:
    """One entity of the set as the source declares it."""
    said = json.loads(line)
    features: list[dict[str, str]] = said["FEATURES"]

    def one(name: str) -> str | None:
        return next((f[name] for f in features if name in f), None)

    return {
        "record_id": f"{said['DATA_SOURCE']}-{said['RECORD_ID']}",
        "emails": [f["EMAIL_ADDRESS"] for f in features if "EMAIL_ADDRESS" in f],
        "phones": [f["PHONE_NUMBER"] for f in features if "PHONE_NUMBER" in f],
        "first_name": one("NAME_FIRST"),
        "last_name": one("NAME_LAST"),
        "born": one("DATE_OF_BIRTH"),
    }


def write(directory: Path, folder: Path) -> tuple[Path, Path]:
    """Records and truth of the set in `folder`, as files."""
    records, truth = directory / "records.jsonl", directory / "truth.csv"
    lines = [line for name in ("customers", "reference", "watchlist")
             for line in (folder / f"{name}.jsonl").read_text().splitlines()]  # fmt: skip
    records.write_text("".join(json.dumps(flat(line)) + "\n" for line in lines))
    rows = [row.split(",") for row in (folder / TRUTH).read_text().splitlines()[1:]]
    truth.write_text("record_id,entity\n" + "".join(f"{row[2]}-{row[3]},{row[1]}\n" for row in rows))
    return records, truth
