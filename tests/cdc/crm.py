"""The app of these tests, the tables that it is over, and what SQL says that each profile must be."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from c360 import App, Projection, Record, collect, count, field, maximum, newest, total
from tests.cdc.machines import Database


class CrmId(str): ...


class ShopId(str): ...


class Customer(Record):
    id: CrmId
    email: str | None
    status: str
    opt_in: bool
    value: Decimal
    tags: list[str] | None
    scores: list[int] | None
    extra: str | None  # jsonb
    notes: str | None
    born: date | None = field(unit="days")


class Order(Record):
    id: str
    customer_id: CrmId
    total: Decimal
    state: str
    placed: datetime


class Line(Record):
    customer_id: CrmId
    line_no: int
    qty: Decimal


class Consent(Record):
    customer_id: CrmId
    purpose: str
    channel: str
    granted: bool


class Alias(Record):
    alias: str
    customer_id: CrmId


class Contact(Record):
    id: int
    customer_id: CrmId
    phone: str | None  # until it was renamed
    phone_no: str | None
    locale: str | None


class ShopCustomer(Record):
    id: ShopId
    name: str | None
    balance: Decimal
    full_name: str | None  # what the column is called later


class ShopOrder(Record):
    order_no: str
    customer_id: ShopId
    total: Decimal


class Profile(Projection):
    email: str | None = newest(Customer.email)
    status: str | None = newest(Customer.status)
    opt_in: bool | None = newest(Customer.opt_in)
    value: Decimal = total(Customer.value)
    tags: list[str] | None = newest(Customer.tags)
    scores: list[int] | None = newest(Customer.scores)
    extra: str | None = newest(Customer.extra)
    notes: str | None = newest(Customer.notes)
    born: date | None = newest(Customer.born)
    orders: int = count(Order)
    spend: Decimal = total(Order.total)
    large: int = count(Order, where=Order.total >= Decimal(100))
    last: datetime | None = maximum(Order.placed)
    lines: int = count(Line)
    qty: Decimal = total(Line.qty)
    granted: int = count(Consent, where=Consent.granted == True)  # noqa: E712 - a condition on a field
    aliases: list[str] = collect(Alias.alias)
    phones: list[str] = collect(Contact.phone, Contact.phone_no)
    locales: int = count(Contact, where=Contact.locale != None)  # noqa: E711 - a condition on a field
    name: str | None = newest(ShopCustomer.full_name, ShopCustomer.name)
    balance: Decimal = total(ShopCustomer.balance)
    shop_orders: int = count(ShopOrder)
    shop_spend: Decimal = total(ShopOrder.total)


def app_of(name: str, prefix: str, shop: str) -> App:
    """The app over tables of PostgreSQL and of MariaDB, by the prefixes of their topics."""
    app = App(name, partitions=2)
    app.identifier("crm", priority=1)(CrmId)
    app.identifier("shop", priority=2)(ShopId)
    app.cdc(f"{prefix}.public.customers", key="id")(Customer)
    app.cdc(f"{prefix}.public.orders", key="id", subject="customer_id")(Order)
    app.cdc(f"{prefix}.public.lines", key=["customer_id", "line_no"], subject="customer_id")(Line)
    app.cdc(f"{prefix}.public.consents", key=["customer_id", "purpose", "channel"], subject="customer_id")(Consent)
    app.cdc(f"{prefix}.public.aliases", key="alias", subject="customer_id")(Alias)
    app.cdc(f"{prefix}.public.contacts", key="id", subject="customer_id")(Contact)
    app.cdc(f"{shop}.shop.customers", key="id")(ShopCustomer)
    app.cdc(f"{shop}.shop.orders", key="order_no", subject="customer_id")(ShopOrder)
    app.projection("customer")(Profile)
    return app


app = app_of("cdc", "pg", "my")
in_avro = app_of("cdc-avro", "av", "none")


POSTGRES = """
CREATE TABLE customers (id bigint PRIMARY KEY, email text, status text NOT NULL DEFAULT 'lead', opt_in boolean NOT NULL DEFAULT
  false, value numeric(14,2) NOT NULL DEFAULT 0, tags text[], scores integer[], extra jsonb, notes text, born date);
ALTER TABLE customers ALTER notes SET STORAGE EXTERNAL, ALTER tags SET STORAGE EXTERNAL, ALTER scores SET STORAGE EXTERNAL,
  ALTER extra SET STORAGE EXTERNAL;
CREATE TABLE orders (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), customer_id bigint NOT NULL, total numeric(12,2) NOT NULL,
  state text NOT NULL DEFAULT 'placed', placed timestamptz NOT NULL DEFAULT now());
CREATE TABLE lines (customer_id bigint, line_no int, qty int NOT NULL, PRIMARY KEY (customer_id, line_no));
CREATE TABLE consents (customer_id bigint, purpose text, channel text, granted boolean NOT NULL,
  PRIMARY KEY (customer_id, purpose, channel));
CREATE TABLE aliases (alias text PRIMARY KEY, customer_id bigint NOT NULL);
CREATE TABLE contacts (id int PRIMARY KEY, customer_id bigint NOT NULL, phone text, fax text);
CREATE TABLE signals (id text PRIMARY KEY, type text NOT NULL, data text);
ALTER TABLE orders REPLICA IDENTITY FULL;
INSERT INTO customers SELECT n, 'c' || n || '@example.com', 'lead', n % 2 = 0, n * 1.25, ARRAY['t' || n], ARRAY[n, -n],
  '{"n": 1}', CASE n % 10 WHEN 0 THEN repeat(md5(n::text), 300) END, '1930-01-01'::date + n::int FROM generate_series(1, 60) n;
INSERT INTO orders(customer_id, total, placed)
  SELECT 1 + n % 60, n * 3.10, '2026-01-01 00:00:00.123Z'::timestamptz + n * interval '1 hour'
  FROM generate_series(1, 300) n;
INSERT INTO lines SELECT 1 + n % 60, n / 60, n FROM generate_series(0, 179) n;
INSERT INTO consents SELECT n, 'marketing', 'email', n % 3 = 0 FROM generate_series(1, 60) n;
INSERT INTO aliases SELECT 'a' || n || '@old.example.com', n FROM generate_series(1, 60) n;
INSERT INTO contacts SELECT n, n, '+4930' || n, 'fax' FROM generate_series(1, 20) n;
"""
MARIADB = """
CREATE TABLE customers (id bigint PRIMARY KEY, name varchar(200), balance decimal(14,2) NOT NULL DEFAULT 0);
CREATE TABLE orders (order_no varchar(40) PRIMARY KEY, customer_id bigint NOT NULL, total decimal(12,2) NOT NULL);
CREATE TABLE signals (id varchar(42) PRIMARY KEY, type varchar(32) NOT NULL, data varchar(2048));
INSERT INTO customers VALUES (1, 'Ana', 10.50), (2, 'Zoë', -3.25), (3, NULL, 0);
INSERT INTO orders VALUES ('A-1', 1, 120.00), ('A-2', 2, 8.00), ('A-3', 2, 9.99);
"""


def columns_of(database: Database, table: str) -> set[str | None]:
    rows = database.sql(f"SELECT column_name FROM information_schema.columns WHERE table_name = '{table}';")
    return {row[0] for row in rows}


def from_postgres(database: Database) -> dict[str, dict[str, Any]]:
    """What each customer's profile must have, by subject; only of those who have anything."""
    columns = columns_of(database, "contacts")
    phone = "phone_no" if "phone_no" in columns else "phone"
    locales = "count(locale)" if "locale" in columns else "0"
    rows = database.sql(f"""
SELECT json_build_object('id', i.id, 'email', c.email, 'status', c.status, 'opt_in', c.opt_in,
  'value', coalesce(c.value, 0)::text, 'tags', c.tags, 'scores', c.scores, 'extra', c.extra::text, 'notes', c.notes,
  'born', c.born,
  'orders', (SELECT count(*) FROM orders WHERE customer_id = i.id),
  'spend', (SELECT coalesce(sum(total), 0)::text FROM orders WHERE customer_id = i.id),
  'large', (SELECT count(*) FROM orders WHERE customer_id = i.id AND total >= 100),
  'last', (SELECT (extract(epoch FROM max(placed)) * 1000000)::bigint FROM orders WHERE customer_id = i.id),
  'lines', (SELECT count(*) FROM lines WHERE customer_id = i.id),
  'qty', (SELECT coalesce(sum(qty), 0)::text FROM lines WHERE customer_id = i.id),
  'granted', (SELECT count(*) FROM consents WHERE customer_id = i.id AND granted),
  'aliases', (SELECT array_agg(alias) FROM aliases WHERE customer_id = i.id),
  'phones', (SELECT array_agg({phone}) FROM contacts WHERE customer_id = i.id AND {phone} IS NOT NULL),
  'locales', (SELECT {locales} FROM contacts WHERE customer_id = i.id))
FROM (SELECT id FROM customers UNION SELECT customer_id FROM orders UNION SELECT customer_id FROM lines UNION SELECT customer_id
  FROM consents UNION SELECT customer_id FROM aliases UNION SELECT customer_id FROM contacts) i
LEFT JOIN customers c ON c.id = i.id;
""")
    found = {}
    for (row,) in rows:
        said = json.loads(row or "")
        customer = said.pop("id")
        found[f"crm:{customer}"] = comparable(said)
    return found


def from_mariadb(database: Database) -> dict[str, dict[str, Any]]:
    columns = columns_of(database, "customers")
    name = "full_name" if "full_name" in columns else "name"
    rows = database.sql(f"""
SELECT i.id, c.{name}, coalesce(c.balance, 0), (SELECT count(*) FROM orders WHERE customer_id = i.id),
  (SELECT coalesce(sum(total), 0) FROM orders WHERE customer_id = i.id)
FROM (SELECT id FROM customers UNION SELECT customer_id FROM orders) i LEFT JOIN customers c ON c.id = i.id;
""")
    return {
        f"shop:{id}": comparable({"name": name, "balance": balance, "shop_orders": int(n or 0), "shop_spend": spend})
        for id, name, balance, n, spend in rows
    }


NUMBERS = ("value", "spend", "qty", "balance", "shop_spend")
SETS = ("aliases", "phones")


def comparable(said: dict[str, Any]) -> dict[str, Any]:
    """Attributes as they are in a profile's record or come from SQL, in one form; what is empty is left out."""
    made: dict[str, Any] = {}
    for name, value in said.items():
        if name in NUMBERS:
            made[name] = Decimal(value or 0).normalize()
        elif name in SETS:
            made[name] = sorted(value or [])
        elif name == "last" and isinstance(value, str):
            made[name] = round(datetime.fromisoformat(value).timestamp() * 1_000_000)
        elif name == "extra" and value is not None:
            made[name] = json.loads(value)
        else:
            made[name] = value
    return {name: value for name, value in made.items() if value not in (None, [], 0, Decimal(0))}
