"""Two clients that write at random, with transactions that overlap, while tables are read again and connector and worker are
killed. A seed is what happens; C360_CDC_SEEDS="5 6 7" tries others, C360_CDC_STEPS more of each.
"""

from __future__ import annotations

import os
import random

import pytest

from tests.cdc.machines import Session
from tests.cdc.world import World

pytestmark = [pytest.mark.cdc, pytest.mark.timeout(900)]
SEEDS = [int(seed) for seed in os.environ.get("C360_CDC_SEEDS", "1").split()]
STEPS = int(os.environ.get("C360_CDC_STEPS", "120"))


class Client:
    """One connection. Writes rows of its own customers only, so that it never waits for the other's locks."""

    def __init__(self, session: Session, random_: random.Random, number: int) -> None:
        self.session, self.random, self.number, self.open = session, random_, number, False

    def customer(self) -> int:
        return 5000 + 2 * self.random.randrange(8) + self.number

    def write(self) -> str:
        of, n = self.customer(), self.random.randrange(1000)
        return self.random.choice([
            f"INSERT INTO customers(id, value, notes) VALUES ({of}, {n}, repeat(md5('{n}'), 200)) ON CONFLICT DO NOTHING",
            f"UPDATE customers SET status = 's{n}', value = value + {n} WHERE id = {of}",
            f"UPDATE customers SET status = 's{n}' WHERE id = {of}",
            f"UPDATE customers SET notes = repeat(md5('{n}'), 200), opt_in = NOT opt_in WHERE id = {of}",
            f"UPDATE customers SET tags = (SELECT array_agg(md5((i + {n})::text)) FROM generate_series(1, 200) i)"
            f" WHERE id = {of}",
            f"DELETE FROM customers WHERE id = {of}",
            f"INSERT INTO aliases VALUES ('r{self.number}-{n % 20}', {of})"
            f" ON CONFLICT (alias) DO UPDATE SET customer_id = {of}",
            f"UPDATE aliases SET alias = 'r{self.number}-' || {n} WHERE alias = 'r{self.number}-{n % 20}'"
            f" AND NOT EXISTS (SELECT FROM aliases WHERE alias = 'r{self.number}-{n}')",
            f"DELETE FROM aliases WHERE alias = 'r{self.number}-{n % 20}'",
            f"INSERT INTO orders(customer_id, total) VALUES ({of}, {n}.25)",
            f"UPDATE orders SET customer_id = {self.customer()} WHERE customer_id = {of}",
            f"DELETE FROM orders WHERE customer_id = {of}",
            f"UPDATE consents SET granted = NOT granted WHERE customer_id = {of}",
            f"INSERT INTO consents VALUES ({of}, 'marketing', 'email', true) ON CONFLICT DO NOTHING",
        ])  # fmt: skip

    def step(self) -> None:
        drawn = self.random.random()
        if not self.open and drawn < 0.3:
            self.session.do("BEGIN")
            self.open = True
        elif self.open and drawn < 0.15:
            self.session.do(self.random.choice(["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"]))
            self.open = False
        else:
            self.session.do(self.write())

    def end(self) -> None:
        if self.open:
            self.session.do("COMMIT")
        self.session.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_written_profiles_are_what_sql_says(world: World, seed: int) -> None:
    random_ = random.Random(seed)
    world.check()
    clients = [Client(world.postgres.session(), random_, number) for number in (0, 1)]
    dead = False
    for step in range(STEPS):
        for _ in range(random_.randrange(1, 9)):
            random_.choice(clients).step()
        drawn = random_.random()
        if drawn < 0.08:
            world.snapshot(random_.choice(["public.customers", "public.aliases", "public.orders"]))
        elif drawn < 0.10:
            world.kill_worker()
            world.work()
        elif drawn < 0.12 and not dead:
            world.connect.kill()
            dead = True
        elif drawn < 0.13 and not any(client.open for client in clients):
            world.postgres.sql("TRUNCATE orders; INSERT INTO orders(customer_id, total) VALUES (5000, 1), (5001, 2);")
        if dead and (random_.random() < 0.2 or step == STEPS - 1):
            world.connect.again()
            dead = False
    for client in clients:
        client.end()
    world.check()
