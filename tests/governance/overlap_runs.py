"""Requests that overlap, in time and in whom they are about: two of one household, who contend for one mailbox.

`python -m tests.governance.overlap_runs --runs 200 --from 0` ends with `runs N divergences 0`, or says how many diverged.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from c360.agents.erasure import Ordered
from c360.agents.wire import decode_assignment
from c360.ops import erase
from tests.governance.forget_runs import PEOPLE, Run
from tests.governance.forget_shop import person
from tests.seeds import run_briefly

FAMILY = (1, 2)
MAILBOX = "family@mail.se"


class Household(Run):
    """Customers 1 and 2 have a mailbox in common, which is of one of them at a time, as their numbers are unique."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        dice = self.dice
        self.doomed = {dice.choice(FAMILY)} if dice.random() < 0.8 else set(FAMILY)
        self.still = dice.random() < 0.6  # the mailbox stays whose it is, until they are erased
        self.label = ""  # asked for again and again
        for who in dice.sample(FAMILY, 2):
            self.shared(who, MAILBOX)
            if dice.random() < 0.3:
                self.go_on(20)
        self.owner = 0

    def shared(self, who: int, mailbox: str | None) -> None:
        self.number += 1
        person(self.driver, f"pk{who}f", str(40 + who), f"Name of {who}", mailbox, at=self.number, op="u")

    def row(self) -> None:
        who = self.dice.choice(FAMILY)
        if self.dice.random() < 0.5:
            self.shared(who, MAILBOX if self.still or self.dice.random() < 0.5 else None)
        else:
            super().row()

    def ask(self) -> None:
        dice, driver = self.dice, self.driver
        assert driver.vault is not None
        if self.still and not self.owner:
            driver.settle()
            said = {k.decode(): v for k, v in driver.read(driver.plan.assignments(driver.plan.identities[0])) if k}
            mailbox = driver.vault.names.token(f"email:{MAILBOX}")
            owners = [
                who for who in FAMILY if (v := said[f"crm:{40 + who}"]) and mailbox in decode_assignment(v).identifiers
            ]
            (self.owner,) = owners
            self.doomed = {self.owner} if len(self.doomed) == 1 else self.doomed
        for _ in range(dice.choice([1, 2, 2, 3])):  # soon after one another
            who = dice.choice(sorted(self.doomed))
            labels = [f"crm:{40 + who}", driver.vault.names.token(f"email:p{who}@mail.se"), f"cookie:c-{who}-0"]
            if who == self.owner:
                labels += [driver.vault.names.token(f"email:{MAILBOX}")] * 3
            if not self.label or dice.random() < 0.4:
                self.label = dice.choice(labels)
            elif self.asked and dice.random() < 0.5:
                who = list(self.asked.values())[-1]
            request = erase.ask(driver.plan, driver.cluster, Ordered(identifier=self.label))
            self.asked[request] = self.whose(self.label, who)
            self.go_on(dice.choice([0, 1, 2, 5, 10, 15, 20, 30]))

    def whose(self, label: str, otherwise: int) -> int:
        assert self.driver.vault is not None
        for who in range(1, PEOPLE + 1):
            if label in (
                f"crm:{40 + who}",
                self.driver.vault.names.token(f"email:p{who}@mail.se"),
                f"cookie:c-{who}-0",
            ):
                return who
        return self.owner or otherwise

    def known(self) -> set[bytes]:
        assert self.driver.vault is not None
        return {self.driver.vault.names.token(f"email:{MAILBOX}").encode()}


def run(seed: int) -> None:
    """Raises AssertionError where the end is other than it should be."""
    one = Household(seed)
    one.whole()
    one.check()


def main(arguments: Sequence[str] | None = None) -> int:
    return run_briefly(run, arguments, program="tests.governance.overlap_runs", about=__doc__, runs=100)


if __name__ == "__main__":
    sys.exit(main())
