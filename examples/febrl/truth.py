"""The truth of a FEBRL data set, out of its record ids: `python -m examples.febrl.truth FILE > truth.csv`

`rec-7-org` and `rec-7-dup-0` are records of entity 7. The app takes them for mere names.
"""

from __future__ import annotations

import csv
import gzip
import sys
from pathlib import Path


def truth(file: Path) -> list[tuple[str, str]]:
    """Record id and entity of each record."""
    with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as text:
        ids = [row["rec_id"].strip() for row in csv.DictReader(text)]
    return [(record, record.split("-")[1]) for record in ids]


if __name__ == "__main__":
    csv.writer(sys.stdout).writerows([("record_id", "entity"), *truth(Path(sys.argv[1]))])
