"""Chaos on real Kafka: worker processes, brokers and the network between them fail; the output must be right all the same.

| module | holds |
|---|---|
| `proxy` | the network between one worker and one broker, which can be cut |
| `ground` | brokers, each reached by each worker through a proxy of its own |
| `crew` | worker processes, started again as a supervisor would |
| `feed` | traffic that goes on without end and remembers what it sent |
| `watch` | when output of which task came, as a read_committed reader sees it |
| `asker` | questions about groups, from a process of their own |
| `faults` | what is done to all of these, and how long output stood still |
| `check` | the output beside that of an undisturbed run: lost, doubled, order |
| `run` | one run from a seed; its table. `python -m tests.chaos` |
"""
