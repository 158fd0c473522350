"""The rules of spec.md for peers in Python, which run in environments of their own: only orjson is needed here."""

import math

import orjson


def parse(value):
    """The event, or None for poison."""
    try:
        e = orjson.loads(value)
    except ValueError:
        return None
    if type(e) is not dict or any(type(e.get(k)) is not str for k in ("event_id", "customer_id", "type")):
        return None
    return e if type(e.get("ts")) is int else None


def nobody():
    """The profile of no events: a list of events, opted out, time of that choice, orders, revenue, first seen, last seen,
    top sku, its count, email, its time, {sku: count}.
    """
    return [0, False, None, 0, 0, None, None, None, 0, None, None, {}]


def fold(p, e):
    """Fold an event into a profile, in place."""
    at, props = e["ts"], e.get("props") or {}
    p[0] += 1
    p[5] = at if p[5] is None else min(p[5], at)
    p[6] = at if p[6] is None else max(p[6], at)
    choice = e.get("consent")
    if choice is not None and (p[2] is None or at > p[2] or (at == p[2] and choice["profiling"])):
        p[1], p[2] = not choice["profiling"], at
    email = e.get("email")
    if email is not None and (p[10] is None or (at, email) > (p[10], p[9])):
        p[9], p[10] = email, at
    sku = props.get("sku")
    if sku is not None:
        n = p[11][sku] = p[11].get(sku, 0) + 1
        if n > p[8] or (n == p[8] and sku < p[7]):
            p[7], p[8] = sku, n
    if e["type"] == "order":
        p[3] += 1
        p[4] += math.floor(props["amount"] * 100 + 0.5)


def shown(customer, p):
    """The profile's record."""
    return orjson.dumps(
        {
            "customer_id": customer,
            "events": p[0],
            "opted_out": p[1],
            "orders": p[3],
            "revenue_cents": p[4],
            "first_seen": p[5],
            "last_seen": p[6],
            "distinct_skus": len(p[11]),
            "top_sku": p[7],
            "email": p[9],
        }
    )
