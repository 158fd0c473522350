"""Who is who in a registry without a trustworthy number: records with typos, swapped names and missing values.

Columns are those of the FEBRL data sets; `examples/febrl/truth.py` makes their truth. Two records are of one person when
they agree on enough of what seldom agrees by chance, in any of several ways, so that no single mistake parts them:

* the social security number, and any one thing more;
* the number but for one digit, whichever, and both names, or one and the street;
* the birth date, and two things more: names, place, street, number;
* both names, and two things of the address.

What would be too little is left out: a birth date and a surname are shared by somebody in every town. Names count in
either order, as forms get them wrong. Two thirds of a person's records may be mistaken in a date or number, but not each
in another way: see `Born` and `Number`.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, product

from c360 import App, Projection, Record, collect, count, newest, normalize

app = App("febrl", partitions=4)

SHORTEST = 6  # digits of a number of which one may be wrong


@app.identifier("record", priority=1, limit=30, hub_at=None)
class RecordId(str): ...


@app.identifier("number_key", priority=3, limit=100)
class NumberKey(str):
    """Social security number, with one thing more."""


@app.identifier("near_key", priority=6, limit=300)
class NearKey(str):
    """The number without one of its digits, with two things more.

    Two numbers have such a rest in common when one digit is wrong, missing or too many, or two neighbours are swapped.
    """


@app.identifier("birth_key", priority=6, limit=200)
class BirthKey(str):
    """Birth date, with two things more."""


@app.identifier("home_key", priority=9, limit=100)
class HomeKey(str):
    """Both names, with two things of the address."""


@app.identifier("born", links=False, limit=4)
class Born(str):
    """Joins nobody. A person's records may have it wrong, but not in five ways: so a chain of coincidences ends."""


@app.identifier("number", links=False, limit=4)
class Number(str):
    """As `Born`."""


@app.source("registry.records", subject="rec_id", name="records")
class Entry(Record):
    rec_id: RecordId
    given_name: str | None
    surname: str | None
    street_number: str | None
    address_1: str | None
    address_2: str | None
    suburb: str | None
    postcode: str | None
    state: str | None
    date_of_birth: Born | None
    soc_sec_id: Number | None


Thing = tuple[str, str | None]  # what it is, and what it says


def names(entry: Entry) -> list[Thing]:
    """Either name, whichever it is."""
    return [("name", entry.given_name), ("name", entry.surname)]


def both(entry: Entry) -> Thing:
    """Both names, in alphabetical order."""
    known = sorted(normalize.folded(name) or "" for name in (entry.given_name or "", entry.surname or ""))
    return "names", " ".join(known) if all(known) else None


def address(entry: Entry) -> list[Thing]:
    return [
        ("postcode", entry.postcode),
        ("suburb", entry.suburb),
        ("street", entry.address_1),
        ("number", entry.street_number),
    ]


def composites(first: Thing, others: Iterable[Sequence[Thing]]) -> Iterator[str]:
    """One value for each combination with the first, of which nothing is missing."""
    for combination in others:
        said = normalize.composite([part for thing in (first, *combination) for part in thing])
        if said is not None:
            yield said


@app.enrich(Entry)
def number_keys(entry: Entry) -> list[NumberKey]:
    more = [("born", entry.date_of_birth), *names(entry), *address(entry)]
    return [NumberKey(key) for key in composites(("number", entry.soc_sec_id), zip(more))]


@app.enrich(Entry)
def near_keys(entry: Entry) -> list[NearKey]:
    number, street = entry.soc_sec_id or "", ("street", entry.address_1)
    rests = sorted({number[:i] + number[i + 1 :] for i in range(len(number))}) if len(number) >= SHORTEST else []
    more = [(both(entry),), *product(names(entry), [street])]
    return [NearKey(key) for rest in rests for key in composites(("rest", rest), more)]


@app.enrich(Entry)
def birth_keys(entry: Entry) -> list[BirthKey]:
    places = address(entry)
    more = [*product(names(entry), places), *spots(places), (both(entry),)]
    return [BirthKey(key) for key in composites(("born", entry.date_of_birth), more)]


@app.enrich(Entry)
def home_keys(entry: Entry) -> list[HomeKey]:
    return [HomeKey(key) for key in composites(both(entry), spots(address(entry)))]


def spots(places: Sequence[Thing]) -> list[tuple[Thing, Thing]]:
    """Two things of an address. Its postcode and suburb are one thing said twice."""
    return [two for two in combinations(places, 2) if {name for name, _ in two} != {"postcode", "suburb"}]


@app.projection("person")
class Person(Projection):
    records: int = count(Entry)
    given_name: str | None = newest(Entry.given_name)
    surname: str | None = newest(Entry.surname)
    births: list[str] = collect(Entry.date_of_birth)
    numbers: list[str] = collect(Entry.soc_sec_id)
