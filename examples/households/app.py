"""Families: one address, one surname, one mailbox, and still several people.

A shared mailbox, a parent's number on a child's form, or a composite of surname and address would make a family one
customer. What keeps them apart is evidence that forbids: two first names, or two birth dates, are never one person. So a
record whose first name or birth date is mistyped stays alone; that is the price, and rather that than a child with its
mother's orders. Day and month of a birth date count in either order, as forms get them wrong.

Columns are those of `examples/households/prepare.py`, which makes them of pseudopeople's data sets.
"""

import re

from c360 import App, Projection, Record, collect, count, newest, normalize

app = App("households", partitions=4)

WRITTEN = (  # how registries write dates
    re.compile(r"(?P<m>\d\d?)/(?P<d>\d\d?)/(?P<y>\d{4})\Z"),
    re.compile(r"(?P<y>(?:19|20)\d\d)(?P<m>\d\d)(?P<d>\d\d)\Z"),
    re.compile(r"(?P<m>\d\d)(?P<d>\d\d)(?P<y>\d{4})\Z"),
)


def day(text: str) -> str | None:
    """The year of a date, then day and month, the smaller first; None of what is no date."""
    for pattern in WRITTEN:
        if found := pattern.match(text.strip()):
            less, more = sorted((int(found["d"]), int(found["m"])))
            return f"{found['y']} {less} {more}" if 1 <= less <= 12 and more <= 31 else None
    return None


@app.identifier("record", priority=1, limit=30, hub_at=None)
class RecordId(str): ...


@app.identifier("ssn", priority=3, limit=3)
class SocialSecurityNumber(str):
    """Mistyped at times, and at times that of a parent."""


@app.identifier("person_key", priority=6, limit=60)
class PersonKey(str):
    """First name and birth date, with the surname or the address; both names, or surname and birth date, with the address."""


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
    ssn: SocialSecurityNumber | None
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
    combinations = (
        ["name", first, last, born],
        ["home", first, born, home],
        ["both", first, last, home],
        ["unnamed", last, born, home],  # of twins, too, whom their first names keep apart
    )
    return [PersonKey(said) for parts in combinations if (said := normalize.composite(parts)) is not None]


@app.projection("person")
class Person(Projection):
    records: int = count(Entry)
    first_name: str | None = newest(Entry.first_name)
    last_name: str | None = newest(Entry.last_name)
    homes: list[str] = collect(Entry.street_name)
