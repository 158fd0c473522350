"""The shop as a module that a worker is given."""

from tests.governance.door_shop import shop

app = shop("town")
