"""Random requests, late joiners, lifts and crashes: in the end all that was in the profile is gone, and nothing else.

`python -m tests.governance.erasure_runs --runs 10000 --from 0` ends with `runs N divergences 0`, or says how many diverged.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from types import ModuleType

from c360.governance import erasure as protocol
from c360.governance.erasure import Stage
from c360.governance.messages import Erase, Lift, Mark, Requested
from tests.governance.world import Agent, Fact, Raw, Task, World, is_subject, outlived, together, veil
from tests.seeds import run_briefly


def random_raw(dice: random.Random, people: int) -> Raw:
    """Mostly of one person; sometimes two have something in common."""
    person, lender = dice.randrange(people), dice.randrange(people)
    identifiers = [f"i{person}{dice.choice('ab')}" for _ in range(dice.choice([0, 1, 1, 2]))]
    if dice.random() < 0.05:
        identifiers.append(f"i{lender}a")
    if dice.random() < 0.1:
        identifiers.append(f"s{person}0")  # a subject that is an identifier, too
    return Raw(f"s{person}{dice.randrange(3)}", tuple(sorted(set(identifiers))))


def world_of(seed: int, code: ModuleType = protocol) -> World:
    """The world of a seed, at its end."""
    dice = random.Random(seed)
    people = dice.choice([1, 2, 4])
    world = World(
        dice,
        tasks=dice.randint(1, 3),
        views=dice.choice([0, 1, 1, 1, 2]),
        agents=dice.randint(1, 3),
        crashes=dice.choice([0.0, 0.0, 0.3]),
        repeats=dice.choice([0.0, 0.0, 0.4]),
        code=code,
    )
    doings: list[str] = ["raw"] * dice.choice([10, 30, 60]) + ["request"] * dice.choice([1, 1, 2, 3])
    doings += ["lift"] * dice.choice([0, 0, 1, 2]) + ["join"] * dice.choice([0, 0, 1, 2])
    doings += ["deploy"] * dice.choice([0, 0, 0, 1, 2]) + ["tick"] * dice.choice([0, 2])
    dice.shuffle(doings)
    asked: list[str] = []
    haste = dice.choice([0.05, 0.2, 0.5])
    for doing in doings:
        do(world, doing, asked, people)
        while dice.random() > haste and world.move():
            pass
    drain(world)
    if dice.random() < 0.5:  # some come back, when all is done
        for _ in range(5):
            do(world, dice.choice(["raw", "raw", "join"]), asked, people)
        drain(world)
    return world


def do(world: World, doing: str, asked: list[str], people: int) -> None:
    dice = world.dice
    match doing:
        case "raw":
            dice.choice(list(world.tasks.values())).raw.append(random_raw(dice, people))
        case "request":
            raw = random_raw(dice, people)
            identifier = dice.choice([raw.subject, *raw.identifiers, "i-nobody"])
            asked.append(f"r{len(asked)}")
            world.say("requests", Requested(asked[-1], identifier, is_subject(identifier)))
        case "lift" if asked:
            world.say("requests", Lift(dice.choice(asked)))
        case "join" if world.views:
            one, other = random_raw(dice, people).subject, dice.choice([random_raw(dice, people).subject, "s99"])
            lives = {name: said.life for name, said in world.log}
            born = lives.get(veil(one), 0), lives.get(veil(other), 0)
            for view in world.views.values():
                view.links.append(Fact(one, other, born, "operator"))
        case "deploy":
            if dice.random() < 0.5:
                name = f"agent{len(world.agents) + 10}"
                world.agents[name] = Agent(world, name)
            elif dice.random() < 0.5:
                name = f"g-{len(world.tasks) + 10}"
                world.tasks[name] = Task(world, name)
            elif len(world.agents) > 1:
                del world.agents[dice.choice(list(world.agents))]
            world.deploy()
        case "tick":
            world.process(tick=True)


def drain(world: World) -> None:
    for _ in range(100_000):
        if not world.move():
            return
    raise AssertionError("it does not come to rest")


def run(seed: int, code: ModuleType = protocol) -> None:
    """Raises AssertionError where the end, or the way there, is other than it should be."""
    check(world_of(seed, code))


def check(world: World) -> None:
    books = world.books()
    everybody = {request: profile_of(world, request) for request in books.erasures}
    lives: dict[str, int] = {}
    for nodes in everybody.values():
        for node in map(veil, nodes):
            lives[node] = lives.get(node, 0) + 1
    assert {name: said.life for name, said in world.log} == lives, "not those are suppressed who were of the profile"
    table = dict(world.log)
    for request, erasure in books.erasures.items():
        stage = protocol.stage_of(erasure, books.known)
        assert stage.name == (Stage.LIFTED if erasure.lifting else Stage.PROVEN).name, "it does not end"
        assert not erasure.open
        assert request not in books.known.open
        certificates = world.certificates.get(request, [])
        assert len(certificates) == 1, "it ends without a certificate, or with several"
        (last,) = certificates
        certified = {s.subject for s in last.subjects} | set(last.identifiers)
        assert certified == set(map(veil, everybody[request])), "not those are certified"
        assert not any(is_subject(name) and not name.startswith("~") for name in erasure.nodes), (
            "it still says who it was"
        )
        for node in map(veil, everybody[request]):
            assert table[node].holds[request].proven, "not said to be over"
            assert bool(table[node].holds[request].lifted) == erasure.lifting, "not suppressed, or not lifted"
        for view in world.views.values():
            assert request not in view.marks, "the mark stands after the proof"
    made = {(r.number, r.subject, r.life) for r in world.governed}
    for agent in world.agents.values():
        right = {r for r in made if r[2] >= lives.get(veil(r[1]), 0)}
        assert {tuple(r) for r in agent.records} == right, "an agent holds too much, or lacks what is none of this"
    for subject, keys in world.keys.items():
        assert not [key for key, life in keys.items() if life < lives.get(veil(subject), 0)], "a key is left"
    for (request, subject), ids in world.destroyed.items():
        assert subject in everybody[request], "somebody else's key is destroyed"
        assert not ids & world.keys.get(subject, {}).keys()
    living = sum(len(keys) for keys in world.keys.values())
    made_keys = {(task.name, *key) for task in world.tasks.values() for key in task.keys}
    assert living == sum(life >= lives.get(veil(subject), 0) for _, subject, life in made_keys), (
        "a key of a new life is gone"
    )


def profile_of(world: World, request: str) -> set[str]:
    """Slowly: whoever was at any moment of one profile with the marked identifier, until the proof."""
    (asked,) = {e for e in world.inbox["requests"] if isinstance(e, Requested) and e.request == request}
    found = {asked.identifier}
    for view in world.views.values():
        until = world.proven.get(request, {}).get(view.name, len(view.history))
        facts: list[Fact] = []
        marked = False
        for message in view.history[:until]:
            if isinstance(message, Fact):
                facts.append(message)
            elif isinstance(message, Erase):
                facts = [f for f in facts if not outlived(f, message.identifier, message.life)]
            elif isinstance(message, Mark) and message.request == request:
                marked = message.on
            if marked:
                found |= together(asked.identifier, facts)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    return run_briefly(run, arguments, program="tests.governance.erasure_runs", about=__doc__, runs=1_000)


if __name__ == "__main__":
    sys.exit(main())
