"""Governance: who may not be served, how a customer is forgotten, and what is noted of it. Pure: no I/O, no clock."""
