"""Made-up people by a seed: families in a town, and records of them with the mistakes that forms get.

Names are made of syllables and are unevenly common, so strangers share names; a family shares surname and address.
Nothing of it is from a real register, and rules were never tuned on it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import NamedTuple

LETTERS, DIGITS = "abcdefghijklmnopqrstuvwxyz", "0123456789"
BEGIN, END = ("ba", "ce", "dra", "fi", "go", "hu", "ja", "ke", "li", "mo", "ne", "pa", "ro", "sa", "ti", "wi"), (
    "bert", "da", "lan", "lie", "mund", "na", "ren", "ric", "son", "than", "ty", "vin",
)  # fmt: skip
KINDS = ("street", "road", "court", "place", "avenue")
ERA, DAYS = date(1920, 1, 1), 100 * 365


class Person(NamedTuple):
    given: str
    surname: str
    number: str
    street: str
    suburb: str
    postcode: str
    born: str  # YYYYMMDD
    ssn: str


Record = tuple[str, Person]
"""Entity, and what one form says of it; "" where it says nothing."""


def family(dice: Random, size: int, *, twins: float) -> list[Person]:
    """People at one address, mostly of one surname; `twins`: how likely one has the birth date of the one before."""
    surname = name(dice)
    number, street = str(dice.randint(1, 150)), f"{name(dice)} {dice.choice(KINDS)}"
    place = dice.randrange(1000)
    suburb, postcode = f"{BEGIN[place % 16]}{END[place % 12]}{BEGIN[place % 7]}", f"{2000 + place}"
    found: list[Person] = []
    while len(found) < size:
        given = name(dice)
        if any(given == other.given for other in found):
            continue
        born = f"{ERA + timedelta(days=dice.randrange(DAYS)):%Y%m%d}"
        if found and dice.random() < twins:
            born = found[-1].born
        last = surname if dice.random() < 0.9 else name(dice)
        found.append(Person(given, last, number, street, suburb, postcode, born, f"{dice.randrange(10**7):07}"))
    return found


def name(dice: Random) -> str:
    """Of two or three syllables; some are ten times as common as others."""
    first = BEGIN[int(len(BEGIN) * dice.random() ** 2)]
    middle = dice.choice(BEGIN) if dice.random() < 0.5 else ""
    return first + middle + END[int(len(END) * dice.random() ** 2)]


def mistaken(dice: Random, person: Person, mistakes: int) -> Person:
    """The same on a form that was filled in badly."""
    for _ in range(mistakes):
        field = dice.choice(Person._fields)
        value: str = getattr(person, field)
        kind = dice.random()
        if kind < 0.1 and field in ("given", "surname"):
            person = person._replace(given=person.surname, surname=person.given)
        else:
            person = person._replace(**{field: "" if kind < 0.25 else typo(dice, value)})
    return person


def typo(dice: Random, value: str) -> str:
    """One character too many, too few, or wrong; or two swapped."""
    if len(value) < 2:
        return value
    at = dice.randrange(len(value) - 1)
    other = dice.choice(DIGITS if value.isdecimal() else LETTERS)
    changed = {
        "more": value[:at] + other + value[at:],
        "less": value[:at] + value[at + 1 :],
        "wrong": value[:at] + other + value[at + 1 :],
        "swapped": value[:at] + value[at + 1] + value[at] + value[at + 2 :],
    }
    return changed[dice.choice(("less", "more", "swapped", "wrong"))]


def write(file: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Path:
    """A CSV file."""
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([columns, *rows])
    return file
