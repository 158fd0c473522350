"""How good the examples' rules are: on made-up people always, on the project's data where it is.

The figures are those of docs/identity.md; the project's data has more tests in tests/ops/test_identity_evaluate.py.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import combinations
from math import comb
from pathlib import Path
from random import Random

import pytest

from c360 import App
from c360.declare import Source
from c360.identity.rules import Rules
from c360.ops.identity.evaluate import Evaluation, evaluate
from c360.ops.identity.graph import chosen_rules
from c360.plan import Identity, Plan
from examples.febrl.app import app as febrl
from examples.households.app import app as households
from tests.quality.people import Person, Record, family, mistaken, write

REGISTRY = ("rec_id", "given_name", "surname", "street_number", "address_1", "address_2", "suburb", "postcode", "state",
            "date_of_birth", "soc_sec_id")  # fmt: skip
PEOPLE = ("record_id", "first_name", "last_name", "date_of_birth", "street_number", "street_name", "unit_number", "ssn",
          "mailbox")  # fmt: skip


def source_and_rules(app: App) -> tuple[Plan, Source, Identity]:
    plan = app.plan()
    (source,) = plan.sources
    return plan, source, chosen_rules(plan, "default")


def judged(app: App, records: Path, truth: Mapping[str, str], *, rules: Rules | None = None) -> Evaluation:
    plan, source, identity = source_and_rules(app)
    file = write(records.with_name("truth.csv"), ("record_id", "entity"), truth.items())
    return evaluate(plan, identity if rules is None else replace(identity, rules=rules), [(source, records)], file)


# --------------------------------------------------------------------------------------------------- a registry
def registry(seed: int, families: int) -> list[Record]:
    """People in families, each with up to four records, of which all but one have up to three mistakes."""
    dice = Random(seed)
    found: list[Record] = []
    for number in range(families):
        for i, person in enumerate(family(dice, dice.choice((1, 1, 2, 3, 4)), twins=0)):
            found.append((f"{number}-{i}", person))
            for _ in range(dice.choice((0, 1, 1, 2, 3))):
                found.append((f"{number}-{i}", mistaken(dice, person, dice.randint(1, 3))))
    dice.shuffle(found)
    return found


def as_registry(records: Iterable[Record]) -> Iterable[tuple[str, ...]]:
    for number, (_, p) in enumerate(records):
        yield f"r{number}", p.given, p.surname, p.number, p.street, "", p.suburb, p.postcode, "", p.born, p.ssn


@pytest.mark.parametrize("seed", range(3))
def test_made_up_people_are_found_again_in_spite_of_mistakes(tmp_path: Path, seed: int) -> None:
    records = registry(seed, 250)
    file = write(tmp_path / "records.csv", REGISTRY, as_registry(records))
    found = judged(febrl, file, {f"r{i}": entity for i, (entity, _) in enumerate(records)})
    assert found.true > 1_000
    assert found.precision >= 0.999
    assert found.f1 >= 0.99
    assert found.largest <= max(Counter(entity for entity, _ in records).values())


def test_no_single_mistake_parts_a_record_from_its_person(tmp_path: Path) -> None:
    """Whichever field is missing, or whichever two are, the rest is enough."""
    (ann,) = family(Random(1), 1, twins=0)
    gaps = [*combinations(Person._fields, 1), *combinations(Person._fields, 2)]
    for number, gap in enumerate(gaps):
        records = [("ann", ann), ("ann", ann._replace(**dict.fromkeys(gap, "")))]
        file = write(tmp_path / f"{number}.csv", REGISTRY, as_registry(records))
        assert judged(febrl, file, {"r0": "ann", "r1": "ann"}).both == 1, gap


# ------------------------------------------------------------------------------------------------------ families
def homes(seed: int, count: int) -> dict[str, list[Record]]:
    """By mailbox, which all of a family share: two records of each, the second with a mistake at times."""
    dice = Random(seed)
    found: dict[str, list[Record]] = {}
    for number in range(count):
        records = found[f"family{number}@mail.org"] = []
        for i, person in enumerate(family(dice, dice.choice((1, 2, 3, 4, 6)), twins=0.05)):
            records += [(f"{number}-{i}", person), (f"{number}-{i}", mistaken(dice, person, int(dice.random() < 0.3)))]
    return found


def as_people(found: Mapping[str, list[Record]]) -> tuple[list[tuple[str, ...]], dict[str, str]]:
    """Rows, and the truth."""
    rows: list[tuple[str, ...]] = []
    truth: dict[str, str] = {}
    for mailbox, records in found.items():
        for entity, p in records:
            truth[f"r{len(rows)}"] = entity
            rows.append((f"r{len(rows)}", p.given, p.surname, p.born, p.number, p.street, "", p.ssn, mailbox))
    return rows, truth


def joined_in_a_home(app: App, records: Path, truth: Mapping[str, str], rules: Rules | None = None) -> float:
    """Of all pairs of records of two people at one mailbox, the share that is one profile."""
    with records.open(newline="") as text:
        mailbox = {row["record_id"]: row["mailbox"] for row in csv.DictReader(text)}
    homes_of = {record: mailbox[record] for record in truth}
    people_of = {record: f"{mailbox[record]} {entity}" for record, entity in truth.items()}
    pairs = _pairs(homes_of) - _pairs(people_of)
    at_home, themselves = (judged(app, records, of, rules=rules).both for of in (homes_of, people_of))
    return (at_home - themselves) / pairs


def _pairs(group_of: Mapping[str, str]) -> int:
    return sum(comb(n, 2) for n in Counter(group_of.values()).values())


def forbidding_nothing() -> Rules:
    """The rules of the example without evidence that forbids."""
    _, _, identity = source_and_rules(households)
    loose = {name: replace(n, limit=1000) for name, n in identity.rules.namespaces.items()}
    return replace(identity.rules, namespaces=loose)


def test_a_family_of_one_mailbox_stays_as_many_people_as_it_is(tmp_path: Path) -> None:
    rows, truth = as_people(homes(0, 250))
    file = write(tmp_path / "records.csv", PEOPLE, rows)
    found = judged(households, file, truth)
    assert found.true > 700
    assert found.found == found.both  # nobody is joined to somebody else, twins included
    assert found.largest == 2
    assert found.recall >= 0.9
    assert joined_in_a_home(households, file, truth) == 0
    assert joined_in_a_home(households, file, truth, forbidding_nothing()) > 0.9  # what a mailbox does by itself


def test_a_parents_number_on_a_childs_form_joins_nobody(tmp_path: Path) -> None:
    dice = Random(2)
    mother, child = family(dice, 2, twins=0)
    records = {"home@mail.org": [("mother", mother), ("child", child), ("child", child._replace(ssn=mother.ssn))]}
    rows, truth = as_people(records)
    found = judged(households, write(tmp_path / "records.csv", PEOPLE, rows), truth)
    assert (found.found, found.both) == (1, 1)
