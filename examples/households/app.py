"""Families: one address, one surname, one mailbox, and still several people.

A shared mailbox or a composite of name and address would make a family one customer. What keeps them apart is evidence
that forbids: two first names, or two birth dates, are never one person. So a record whose first name or birth date is
mistyped stays alone; that is the price, and rather that than a child with its mother's orders.

Columns are those of `examples/households/prepare.py`, which makes them of pseudopeople's censuses.
"""

import re
from datetime import date

from c360 import App, Projection, Record, collect, count, newest, normalize

app = App("households", partitions=4)

WRITTEN = (  # how registries write dates
    re.compile(r"(?P<m>\d\d?)/(?P<d>\d\d?)/(?P<y>\d{4})\Z"),
    re.compile(r"(?P<y>(?:19|20)\d\d)(?P<m>\d\d)(?P<d>\d\d)\Z"),
    re.compile(r"(?P<m>\d\d)(?P<d>\d\d)(?P<y>\d{4})\Z"),
)


def day(text: str) -> str | None:
    """The day of a date, however it is written; None of what is no date."""
    for pattern in WRITTEN:
        if found := pattern.match(text.strip()):
            try:
                return date(int(found["y"]), int(found["m"]), int(found["d"])).isoformat()
            except ValueError:
                return None
    return None


@app.identifier("record", priority=1, limit=30, hub_at=None)
class RecordId(str): ...


@app.identifier("person_key", priority=6, limit=60)
class PersonKey(str):
    """First name and birth date, with the surname or the address; both names with the address."""


@app.identifier("mailbox", priority=9, limit=10, hub_at=100, normalize=normalize.email)
class Mailbox(str):
    """Often a family's, so it decides last."""


@app.identifier("first_name", links=False, limit=1, normalize=normalize.folded)
class FirstName(str):
    """Joins nobody; two of them are never one person."""


@app.identifier("born", links=False, limit=1, normalize=day)
class Born(str):
    """As `FirstName`."""


@app.source("registry.people", subject="record_id", name="people")
class Entry(Record):
    record_id: RecordId
    first_name: FirstName | None
    last_name: str | None
    date_of_birth: Born | None
    street_number: str | None
    street_name: str | None
    unit_number: str | None
    mailbox: str | None


@app.enrich(Entry)
def reached_at(entry: Entry) -> Mailbox | None:
    """The mailbox, of a record that says whose it is: one without name or birth date would forbid nothing."""
    known = entry.mailbox and entry.first_name and day(entry.date_of_birth or "")
    return Mailbox(entry.mailbox) if known and entry.mailbox else None


@app.enrich(Entry)
def person_keys(entry: Entry) -> list[PersonKey]:
    first, last = entry.first_name, entry.last_name
    born = day(entry.date_of_birth or "")
    home = normalize.composite([entry.street_number, entry.street_name])
    combinations = (["name", first, last, born], ["home", first, born, home], ["both", first, last, home])
    return [PersonKey(said) for parts in combinations if (said := normalize.composite(parts)) is not None]


@app.projection("person")
class Person(Projection):
    records: int = count(Entry)
    first_name: str | None = newest(Entry.first_name)
    last_name: str | None = newest(Entry.last_name)
    homes: list[str] = collect(Entry.street_name)
