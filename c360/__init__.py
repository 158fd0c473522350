"""c360: a Customer 360 data plane on Kafka. Raw events and database changes in, one live profile per customer out.

`from c360 import App, Record, Projection, count, …` is all an app needs; importing it does no I/O.
"""

from c360.app import App
from c360.classes import Personal, Sensitive
from c360.codecs import cloudevents, segment
from c360.codecs.record import AnyIdentifier, Record, field
from c360.declare import (
    Projection,
    average,
    collect,
    count,
    derived,
    distinct,
    first,
    flag,
    maximum,
    minimum,
    newest,
    prefer,
    top,
    total,
)
from c360.governance.inputs import FromTcf
from c360.identity import normalize

__all__ = [
    "AnyIdentifier",
    "App",
    "FromTcf",
    "Personal",
    "Projection",
    "Record",
    "Sensitive",
    "average",
    "cloudevents",
    "collect",
    "count",
    "derived",
    "distinct",
    "field",
    "first",
    "flag",
    "maximum",
    "minimum",
    "newest",
    "normalize",
    "prefer",
    "segment",
    "top",
    "total",
]
__version__ = "0.1.0"
