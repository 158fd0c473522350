"""The same in Avro: schemas in a real registry, numbers as Avro's decimals, a schema for each set of columns."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from c360.engine.transport import TP
from tests.cdc.crm import in_avro
from tests.cdc.machines import CONVERTER, Connect, Postgres
from tests.cdc.world import World
from tests.registry import Apicurio

pytestmark = [pytest.mark.cdc, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def avro(
    kafka: str, connect: Connect, postgres: Postgres, real_registry: Apicurio, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    home = tmp_path_factory.mktemp("avro")
    world = World(kafka, connect, postgres.database("avro"), home, in_avro, "tests.cdc.crm:in_avro", "av")
    world.settings["C360_REGISTRY"] = real_registry.url
    converter = {
        "": CONVERTER, ".apicurio.registry.url": real_registry.url.replace("/apis/ccompat/v7", "/apis/registry/v2"),
        ".apicurio.registry.auto-register": "true", ".apicurio.registry.find-latest": "true",
        ".apicurio.registry.as-confluent": "true", ".apicurio.registry.use-id": "contentId",
        ".apicurio.registry.headers.enabled": "false",
        ".apicurio.registry.artifact-resolver-strategy": "io.apicurio.registry.serde.strategy.TopicIdStrategy",
    }  # fmt: skip
    world.more = {f"{side}.converter{name}": value for side in ("key", "value") for name, value in converter.items()}
    world.more |= {
        "schema.name.adjustment.mode": "avro", "field.name.adjustment.mode": "avro", "decimal.handling.mode": "precise",
    }  # fmt: skip
    try:
        world.begin()
        yield world
        connect.delete("av")
    finally:
        world.end()


def test_a_snapshot_then_the_stream(avro: World) -> None:
    avro.check()
    avro.postgres.sql("""
INSERT INTO customers(id, value) VALUES (101, -0.01), (102, 99999999999.99);
UPDATE customers SET notes = repeat(md5('n'), 400), tags = (SELECT array_agg(md5(i::text)) FROM generate_series(1, 300) i),
  scores = (SELECT array_agg(i * 1000003) FROM generate_series(1, 2000) i) WHERE id = 25;
UPDATE customers SET status = 'active' WHERE id IN (25, 30);
UPDATE orders SET total = total * 2 WHERE customer_id = 3;
UPDATE aliases SET alias = 'moved' || customer_id || '@example.com' WHERE customer_id BETWEEN 30 AND 45;
BEGIN; UPDATE customers SET email = 'never@example.com' WHERE id = 12; ROLLBACK;
DELETE FROM customers WHERE id = 5; DELETE FROM orders WHERE customer_id = 4;
TRUNCATE lines; INSERT INTO lines VALUES (1, 1, 9);
""")
    avro.check()
    reader = avro.cluster.reader()
    parts = [TP("av.public.customers", p) for p in (0, 1)]
    values = [v for batches in reader.read(reader.starts(parts)) for b in batches for v in b.values if v is not None]
    reader.close()
    assert {value[0] for value in values} == {0}, "Confluent's wire format"


def test_columns_that_are_added_dropped_and_renamed(avro: World) -> None:
    avro.postgres.sql("""
ALTER TABLE contacts ADD COLUMN locale varchar(10) DEFAULT 'en-GB';
ALTER TABLE contacts DROP COLUMN fax;
ALTER TABLE contacts RENAME COLUMN phone TO phone_no;
UPDATE contacts SET phone_no = phone_no;
ALTER TABLE orders ALTER COLUMN total TYPE numeric(16,4);
UPDATE orders SET total = 45.7500 WHERE customer_id = 50;
""")
    avro.check()


def test_a_connector_that_is_killed_and_a_table_that_is_read_again(avro: World) -> None:
    avro.check()
    session = avro.postgres.session()
    session.do("BEGIN")
    session.do("UPDATE customers SET status = 'slow', value = value + 1000 WHERE id BETWEEN 50 AND 60")
    avro.snapshot("public.customers")
    avro.postgres.sql("UPDATE customers SET status = 'quick' WHERE id = 49;")
    avro.check_some("crm:49")
    session.do("COMMIT")
    session.close()
    avro.connect.kill()
    avro.connect.again()
    avro.connect.until_running("av")
    avro.postgres.sql("UPDATE customers SET value = value + 1;")
    avro.check_all()
