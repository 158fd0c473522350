"""Keyed state of a task: a local store of what is committed, and tables that see their own uncommitted writes.

Knows bytes and transactions' ends; has never heard of a customer, a topic or a broker.
"""
