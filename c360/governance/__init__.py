"""Governance: purposes and consent, sealed values, who is to be forgotten, and what is noted of it.

Pure: no I/O, no clock; time, randomness and ids are arguments.
"""
