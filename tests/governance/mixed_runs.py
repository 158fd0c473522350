"""Customers in records of every format, some of whom are forgotten, with accidents; sources that are paused; nobody else loses.

`python -m tests.governance.mixed_runs --runs 100 --from 0` ends with `runs N divergences 0`, or says how many diverged.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Sequence

from c360.agents.contracts import contract_of
from c360.agents.control import Pause, pause_key
from c360.agents.erasure import Ordered
from c360.engine.transport import Headers
from c360.governance.erasure import Stage
from c360.ops import control, dlq, erase
from c360.testing import TestDriver
from tests.governance.forget_shop import NOW, bytes_of
from tests.governance.mixed_town import Producers, town
from tests.seeds import run_briefly
from tests.sources.registry import FakeRegistry

PEOPLE = 3
SOURCES = ("web", "orders", "letters", "people", "cards")


class Run:
    """One seed. Everything personal about somebody has `mine-{who}-` in it, every identifier `who-{who}-`."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        registry, app = FakeRegistry(), town("mixed")
        for contract in filter(None, (contract_of(app.plan(), door) for door in app.plan().doors)):
            registry.put(contract.subject, contract.text, "FULL_TRANSITIVE")
        self.driver = TestDriver(app, now=NOW, registry=registry, subjects=registry, cloudevents=True)
        self.p = Producers("mixed", self.send, registry)
        self.doomed = set(self.dice.sample(range(1, PEOPLE + 1), self.dice.choice([1, 1, 2])))
        self.asked: dict[str, int] = {}
        self.counts: Counter[tuple[int, str]] = Counter()
        self.cards: dict[str, int] = {}

    def send(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers | None) -> None:
        self.driver.send(topic, key, value, headers=headers)

    def someone(self) -> tuple[int, str, str, str]:
        """Who, customer number, cookie, address."""
        who = self.dice.randint(1, PEOPLE)
        return who, f"who-{who}-", f"who-{who}-kuki{self.dice.randrange(2)}", f"mine-{who}-@mail.se"

    # ---------------------------------------------------------------------------------------------------- what comes
    def search(self) -> None:
        who, crm, cookie, _ = self.someone()
        user = crm if self.dice.random() < 0.5 else None
        self.p.search(user, None if user else cookie, f"mine-{who}-words")
        self.counts[who, "searches"] += 1

    def identify(self) -> None:
        who, crm, cookie, mail = self.someone()
        self.p.identify(crm, cookie, f"mine-{who}-name", mail, agrees=self.dice.random() < 0.8)

    def alias(self) -> None:
        _, crm, cookie, _ = self.someone()
        self.p.call("alias", crm, None, previousId=cookie)

    def group(self) -> None:
        who, crm, _, _ = self.someone()
        self.p.call("group", crm, None, groupId="g", traits={"role": f"mine-{who}-role"})

    def order(self) -> None:
        who, crm, _, _ = self.someone()
        self.p.order(crm, f"mine-{who}-street", f"mine-{who}-wrap" if self.dice.random() < 0.5 else None)
        self.counts[who, "orders"] += 1

    def letter(self) -> None:
        who, crm, _, mail = self.someone()
        to = self.dice.choice([mail, f"bad.{mail}"])
        self.p.letter(crm, to, f"mine-{who}-text", binary=self.dice.random() < 0.5)
        self.counts[who, "letters"] += 1

    def person(self) -> None:
        who, crm, _, mail = self.someone()
        notes = self.dice.choice([None, f"mine-{who}-notes", "__debezium_unavailable_value"])
        self.p.person(crm, f"mine-{who}-name", mail, notes, op=self.dice.choice("uuurd"))

    def card(self) -> None:
        who, crm, _, _ = self.someone()
        self.p.card(f"{crm}{self.dice.randrange(3)}", crm, f"mine-{who}-holder", op=self.dice.choice("ccrd"))

    def card_changes_hands(self) -> None:
        who, crm, _, _ = self.someone()
        self.p.card("shared", crm, f"mine-{who}-holder")

    def truncate(self) -> None:
        self.p.no_cards()

    def misfit(self) -> None:
        who, crm, cookie, mail = self.someone()
        said = f"mine-{who}- {crm} {mail}".encode()
        topic, key, value, headers = self.dice.choice([
            ("orders", crm.encode(), said, None),
            ("orders", crm.encode(), self.p.frames["orders"] + said, None),
            ("orders", crm.encode(), b"\0\0\0\x7f\x7f" + said, None),
            ("web", cookie.encode(), b'{"type": "identify", "userId": ["' + said + b'"]}', None),
            ("web", cookie.encode(), said, None),
            ("letters", crm.encode(), said, [("content-type", b"application/cloudevents+json")]),
            ("letters", crm.encode(), said, [("ce_specversion", b"0.3"), ("ce_subject", said)]),
            ("people", said, said, None),
            ("people", b'{"id": "%s"}' % crm.encode(), json.dumps({"id": crm, "name": said.decode()}).encode(), None),
            ("cards", self.p.frames["keys"] + said, self.p.frames["cards"] + said, None),
        ])  # fmt: skip
        self.driver.send(f"mixed.{topic}", key, value, headers=headers)

    # ------------------------------------------------------------------------------------------------ what is done
    def ask(self) -> None:
        who = self.dice.choice(sorted(self.doomed))
        assert self.driver.vault is not None
        mail = self.driver.vault.names.token(f"email:mine-{who}-@mail.se")
        label = self.dice.choice([f"crm:who-{who}-", f"crm:who-{who}-", f"cookie:who-{who}-kuki0", mail])
        self.asked[erase.ask(self.driver.plan, self.driver.cluster, Ordered(identifier=label))] = who

    def pause(self) -> None:
        name = self.dice.choice(SOURCES)
        said = Pause(self.driver.now_ms) if self.dice.random() < 0.6 else None
        control.write(self.driver.plan, self.driver.cluster, [(pause_key(name), said)])

    def send_back(self) -> None:
        self.driver.settle()  # who reads here waits for open transactions, and nobody would end them
        dlq.replay(self.driver.plan, self.driver.cluster, topic=None, reason=None)

    def reset(self) -> None:
        self.resume()
        self.driver.reset(self.dice.choice(["identity@1", "customer@1", "sink:rows", "customer@1:service", "consent"]))

    def resume(self) -> None:
        pauses = [(pause_key(name), None) for name in SOURCES]
        control.write(self.driver.plan, self.driver.cluster, pauses)

    def go_on(self, turns: int) -> None:
        for _ in range(turns):
            for process in self.driver.processes:
                process.turn()

    def whole(self) -> None:
        dice, driver = self.dice, self.driver
        comes = [self.search, self.identify, self.alias, self.group, self.order, self.letter, self.person, self.card]
        comes += [self.misfit, self.identify, self.person]
        doings = [dice.choice(comes) for _ in range(45)] + [self.truncate, self.card_changes_hands] * dice.choice(
            [0, 1]
        )
        doings += [self.ask] * dice.choice([1, 2, 3]) + [self.pause] * dice.choice([0, 1, 3])
        doings += [driver.crash] * dice.choice([0, 2, 4]) + [driver.lose_disk] * dice.choice([0, 0, 1])
        doings += [driver.rebalance] * dice.choice([0, 0, 1]) + [self.send_back] * dice.choice([0, 1])
        doings += [self.reset] * dice.choice([0, 0, 1])
        dice.shuffle(doings)
        for doing in doings:
            doing()
            self.go_on(dice.choice([0, 0, 1, 2, 5, 20]))
        self.resume()
        driver.settle()
        self.last()
        driver.settle()

    def last(self) -> None:
        """Who had to be forgotten is asked for by all names, as one that nothing joined to the others is found by none of them.
        Then everybody goes on."""
        assert self.driver.vault is not None
        for who in sorted(set(self.asked.values())):
            mails = [f"email:{bad}mine-{who}-@mail.se" for bad in ("", "bad.")]
            labels = [f"crm:who-{who}-", *(f"cookie:who-{who}-kuki{n}" for n in range(2))]
            labels += map(self.driver.vault.names.token, mails)
            for label in labels:
                self.asked[erase.ask(self.driver.plan, self.driver.cluster, Ordered(identifier=label))] = who
        self.driver.settle()
        for doing in (self.search, self.identify, self.order, self.letter, self.person, self.card, self.misfit) * 3:
            doing()

    # -------------------------------------------------------------------------------------------------------- checks
    def check(self) -> None:
        driver, plan = self.driver, self.driver.plan
        for request in self.asked:
            there = erase.where(plan, driver.cluster, request)
            assert there is not None
            assert there.stage == Stage.PROVEN, f"it ends {there.stage}, waits for {there.waits}"
        passing = {t.name for t in plan.topics if t.config.get("cleanup.policy") != "compact"}
        gone = set(self.asked.values())
        for place, data in bytes_of(driver):
            for who in range(1, PEOPLE + 1):
                opened = {"mixed.activation.rows", "mixed.activation.mailer", "mixed.customer.v1.service",
                          "mixed.customer.v1.marketing"}  # fmt: skip
                if who in gone or place not in opened:
                    assert b"mine-%d-" % who not in data, f"{who} can be read in {place}"
                assert who not in gone or place in passing or b"who-%d-" % who not in data, f"{who} is left in {place}"
        counted: Counter[tuple[int, str]] = Counter()
        for value in dict(driver.read(plan.projected(plan.projections[0]))).values():
            if value is not None:
                record = json.loads(value)
                who = int(record["subjects"][0].split("who-")[1][0])
                for what in ("searches", "orders", "letters"):
                    counted[who, what] += record["attributes"][what]
        kept = Counter({(who, what): n for (who, what), n in self.counts.items() if who not in gone})
        assert counted == kept, "somebody who was not asked for lost something, or somebody is back"
        driver.verify()


def run(seed: int) -> None:
    """Raises AssertionError where the end is other than it should be."""
    one = Run(seed)
    one.whole()
    one.check()


def main(arguments: Sequence[str] | None = None) -> int:
    return run_briefly(run, arguments, program="tests.governance.mixed_runs", about=__doc__, runs=50)


if __name__ == "__main__":
    sys.exit(main())
