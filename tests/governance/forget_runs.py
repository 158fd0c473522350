"""Random customers, requests, lifts and accidents: in the end exactly those are forgotten who had to be.

`python -m tests.governance.forget_runs --runs 200 --from 0` ends with `runs N divergences 0`, or says how many diverged.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Sequence

from c360.agents.erasure import Ordered
from c360.governance.erasure import Stage
from c360.governance.suppressed import decode_suppressed
from c360.ops import erase
from c360.testing import TestDriver
from tests.governance.forget_shop import NOW, click, left, person, shop
from tests.seeds import run_briefly

PEOPLE = 4


class Run:
    """One seed: what was sent, who was asked for, and the driver."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.driver = TestDriver(shop(), now=NOW)
        self.number = 0
        self.clicks: Counter[int] = Counter()  # of people nobody asks to forget
        self.asked: dict[str, int] = {}  # request → person
        self.lifted: set[str] = set()
        self.doomed = set(self.dice.sample(range(1, PEOPLE + 1), self.dice.choice([1, 1, 2])))

    def click(self) -> None:
        who = self.dice.randint(1, PEOPLE)
        self.number += 1
        cookie = f"c-{who}-{self.dice.randrange(3)}"
        login = f"p{who}@mail.se" if self.dice.random() < 0.6 else None
        click(self.driver, self.number, cookie, login, f"word of {who}")
        self.clicks[who] += 1

    def row(self) -> None:
        who = self.dice.randint(1, PEOPLE)
        self.number += 1
        person(self.driver, f"pk{who}", str(40 + who), f"Name of {who}", f"p{who}@mail.se", at=self.number, op="u")

    def ask(self) -> None:
        who = self.dice.choice(sorted(self.doomed))
        assert self.driver.vault is not None
        mail = self.driver.vault.names.token(f"email:p{who}@mail.se")
        label = self.dice.choice([f"crm:{40 + who}", mail, f"cookie:c-{who}-0"])
        self.asked[erase.ask(self.driver.plan, self.driver.cluster, Ordered(identifier=label))] = who

    def lift(self) -> None:
        if self.asked:
            request = self.dice.choice(sorted(self.asked))
            self.lifted.add(request)
            erase.ask(self.driver.plan, self.driver.cluster, Ordered(lift=request))

    def go_on(self, turns: int) -> None:
        for _ in range(turns):
            for process in self.driver.processes:
                process.turn()

    def whole(self) -> None:
        dice, driver = self.dice, self.driver
        doings = [self.click] * 30 + [self.row] * 8 + [self.ask] * dice.choice([1, 2, 3])
        doings += [self.lift] * dice.choice([0, 0, 1])
        doings += [driver.crash] * dice.choice([0, 2, 5]) + [driver.lose_disk] * dice.choice([0, 0, 1])
        doings += [driver.rebalance] * dice.choice([0, 0, 1])
        agents = ["identity@1", "customer@1"]
        doings += [lambda: driver.reset(dice.choice(agents))] * dice.choice([0, 0, 1])
        dice.shuffle(doings)
        for doing in doings:
            doing()
            self.go_on(dice.choice([0, 0, 1, 2, 5, 20]))
        driver.settle()
        if dice.random() < 0.5:  # some come back
            for _ in range(5):
                self.click()
                self.row()
        driver.settle()

    # -------------------------------------------------------------------------------------------------------- checks
    def known(self) -> set[bytes]:
        """What else may be suppressed."""
        return set()

    def check(self) -> None:
        driver, plan = self.driver, self.driver.plan
        assert driver.vault is not None
        names = driver.vault.names
        said = {key: decode_suppressed(value) for key, value in driver.read(plan.suppressed) if key and value}
        standing = {key for key, found in said.items() if found.stands}
        for request in self.asked:
            there = erase.where(plan, driver.cluster, request)
            assert there is not None
            wanted = Stage.LIFTED if request in self.lifted else Stage.PROVEN
            assert there.stage == wanted, f"it ends {there.stage}, waits for {there.waits}"
        everybody = {
            who: [f"crm:{40 + who}", *(f"cookie:c-{who}-{n}" for n in range(3))] for who in range(1, PEOPLE + 1)
        }
        allowed = {names.veil(label).encode() for who in self.asked.values() for label in everybody[who]}
        allowed |= {names.token(f"email:p{who}@mail.se").encode() for who in self.asked.values()}
        assert said.keys() <= allowed | self.known(), "somebody else is suppressed"
        living = {key for key, value in dict(driver.read(plan.keys)).items() if key and value}
        hidden = {label for labels in everybody.values() for label in labels if names.veil(label).encode() in standing}
        assert not [key for key in living if key.split(b"\0")[0].decode() in hidden], "a key is left"
        passing = {t.name for t in plan.topics if t.config.get("cleanup.policy") != "compact"}
        kept = {place: words for place, words in left(driver, sorted(hidden)).items() if place not in passing}
        assert not kept, f"it is left in {kept}"
        counted: Counter[int] = Counter()
        for value in dict(driver.read("forget.customer.v1")).values():
            if value is not None:
                record = json.loads(value)
                assert not hidden & {*record["subjects"], *record["identifiers"]}, "somebody is back"
                who = int(record["subjects"][0].removeprefix("crm:4").removeprefix("cookie:c-")[0])
                counted[who] += record["attributes"]["clicks"]
        for who in range(1, PEOPLE + 1):
            if who not in self.asked.values():
                assert counted[who] == self.clicks[who], "somebody who was not asked for lost something"
        driver.verify()


def run(seed: int) -> None:
    """Raises AssertionError where the end is other than it should be."""
    one = Run(seed)
    one.whole()
    one.check()


def main(arguments: Sequence[str] | None = None) -> int:
    return run_briefly(run, arguments, program="tests.governance.forget_runs", about=__doc__, runs=100)


if __name__ == "__main__":
    sys.exit(main())
