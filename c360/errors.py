"""One error class per remedy.

The class says who has to act and how; the message says what to do next, with the names the user wrote. No message
carries a value out of a record: what a customer sent never reaches a log.
"""

from __future__ import annotations


class C360Error(Exception):
    """Everything c360 raises on purpose. The command line prints the message and exits with `exit_code`."""

    exit_code = 1


class DeclarationError(C360Error):
    """Fix the app: a declaration is wrong. Names the class and field, what is wrong, and what to write instead."""

    exit_code = 2


class UsageError(C360Error):
    """Fix the command or a setting: a flag, a `C360_*` variable or a name that does not exist."""

    exit_code = 2


class Misfit(C360Error):
    """Divert the record: it goes to the dead-letter topic with `reason` (a stable word) and a sentence for people.

    The sentence names fields and types, never values.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class BrokerAway(C360Error):
    """Wait and try again: the broker does not answer, or a coordinator is moving."""


class RegistryAway(BrokerAway):
    """Wait and try again: the schema registry does not answer."""


class Stale(BrokerAway):
    """Hold back, and try again: what is known here is older than was asked for. Nothing may leave on the strength of it."""


class Shut(C360Error):
    """Abort, rewind, and try again in a moment: what was made may not leave now. Nothing is wrong with the broker.

    `reason` is a stable word; the sentence says for people what is waited for.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class TransactionAborted(C360Error):
    """Abort and rewind: the transaction cannot commit, the producer lives; owned partitions go back to their positions."""


class TaskMigrated(C360Error):
    """Rejoin: this member is no longer in the group. Abort, drop all tasks, subscribe again."""


class Replaced(TaskMigrated):
    """Rejoin, but not for ever: another member came with this one's static id. It may be this process itself, to a broker
    that lost its answer; if it happens again and again, it is another process, and this one stops."""


class OutcomeUnknown(C360Error):
    """New producer: a commit or abort timed out. Never reuse the old one; re-read committed positions and rewind."""


class TaskCorrupted(C360Error):
    """Restore: a local store failed after a commit. Delete it and read the changelog again."""


class Fenced(C360Error):
    """Stop: another process has this slot or state directory. Nothing may be written by this one (any more)."""

    exit_code = 3


class Evicted(Fenced):
    """Begin anew, but not for ever: another has taken this producer's transactions. It is the heir of its partitions, after
    this process was not heard of for long; or a process with the same slot: then it happens again, and this one stops."""


class NeedsOperator(C360Error):
    """Stop: positions, drift or a half-done reset need a person's decision. The message names the command."""

    exit_code = 4


class NotYet(NeedsOperator):
    """Nothing was changed: what was asked for may not be done as things stand. Bring about what the message names, and ask
    again."""

    exit_code = 1


class OutOfLog(NeedsOperator):
    """Look again where the log begins, if somebody may have cut it meanwhile, as a reset does; else as for NeedsOperator: what
    was to be read is not there any more."""


class EngineFatal(C360Error):
    """Stop: the client reported a fatal error that no retry in this process can mend."""
