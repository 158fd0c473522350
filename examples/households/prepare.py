"""Records and truth of pseudopeople's data sets: `python -m examples.households.prepare DIRECTORY FILE…`

Writes `records.csv`, with what `examples/households/app.py` reads, and `truth.csv`: `record_id,entity` by simulant. Neither
simulants nor households are in the records, but every household that has an address gets a mailbox that all of it shares.
"""

from __future__ import annotations

import csv
import gzip
import sys
from collections.abc import Sequence
from pathlib import Path

COLUMNS = ("first_name", "last_name", "date_of_birth", "street_number", "street_name", "unit_number", "ssn")


def prepare(directory: Path, files: Sequence[Path]) -> int:
    """How many records there are."""
    number = 0
    with (
        (directory / "records.csv").open("w", newline="") as out,
        (directory / "truth.csv").open("w", newline="") as right,
    ):
        records, truth = csv.writer(out), csv.writer(right)
        records.writerow(("record_id", *COLUMNS, "mailbox"))
        truth.writerow(("record_id", "entity"))
        for file in files:
            with gzip.open(file, "rt", newline="") as rows:
                for row in csv.DictReader(rows):
                    number += 1
                    household = row.get("household_id")
                    mailbox = f"family{household.replace('_', '')}@mail.example" if household else ""
                    records.writerow((number, *(row.get(c) or "" for c in COLUMNS), mailbox))
                    truth.writerow((number, row["simulant_id"]))
    return number


if __name__ == "__main__":
    print(prepare(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]), "records")
