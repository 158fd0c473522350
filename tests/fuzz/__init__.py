"""Mutated records of all formats through govern: each becomes a value, a misfit of a known reason, or is left out.

Never a crash, a hang or unbounded memory: `make fuzz RUNS=1000000`.
"""
