"""Answers from outside as govern reads them: the envelope that we wrote, and in it the record, opened where it is sealed.

An answer whose key was destroyed is about somebody who was forgotten after it was asked for: it says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

import msgspec

from c360.agents.opening import Opening
from c360.agents.wire import Answer, decode_answer, decode_json
from c360.codecs.json import Choice, HeadersOf, JsonDecoder
from c360.codecs.layout import UNREADABLE, misfit_of
from c360.codecs.record import Record
from c360.errors import Misfit
from c360.governance.sealing import Destroyed, is_sealed, read_sealed


class AnswersDecoder(JsonDecoder):
    """Of one outside enrichment. `opening`: of an app that needs keys; without it a sealed answer is a misfit."""

    def __init__(self, record: type[Record], agent: str, opening: Opening | None) -> None:
        super().__init__([Choice(record, None)], "dlq")
        self.read = msgspec.json.Decoder(record).decode
        self.agent, self.opening = agent, opening
        self.lives: Sequence[int] = ()
        """Of the subjects, when they were asked about: of those who were forgotten since, nothing is said."""

    def decode(self, values: Sequence[bytes | None], headers: HeadersOf | None = None) -> list[Record | Misfit | None]:
        """Raises Shut while a key is not known that may still come."""
        said = [self._said(value) for value in values]
        self.ids = [one.id if isinstance(one, Answer) else None for one in said]
        self.times = [None] * len(said)
        self.lives = [one.life if isinstance(one, Answer) else 0 for one in said]
        if self.opening is not None:
            self.opening.have(dict.fromkeys(pair for one in said for pair in _keys_of(one)))
        return [self._record(one) if isinstance(one, Answer) else one for one in said]

    def _said(self, value: bytes | None) -> Answer | Misfit:
        if not value:
            return self._empty()
        try:
            return decode_answer(value)
        except UNREADABLE as error:
            return misfit_of(error, "the envelope of an answer")

    def _record(self, said: Answer) -> Record | Misfit | None:
        try:
            data = bytes(said.record)
            value = decode_json(data)
            if is_sealed(value):
                if self.opening is None:
                    raise Misfit("not-sealed", "a sealed answer stands where the app has no keys")
                data = self.opening.open(value, (read_sealed(value).subject,), (self.agent,))
            record: Record = self.read(data)
            return record
        except Destroyed:
            return None
        except Misfit as misfit:
            return misfit
        except UNREADABLE as error:
            return misfit_of(error, self.names)


def _keys_of(said: Answer | Misfit) -> Iterator[tuple[str, str]]:
    """The one that it is sealed with, if it is; what is wrong with it is said when it is opened."""
    if isinstance(said, Answer):
        with suppress(Misfit, *UNREADABLE):
            value = decode_json(said.record)
            if is_sealed(value):
                sealed = read_sealed(value)
                yield sealed.subject, sealed.key_id
