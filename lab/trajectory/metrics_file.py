"""`metrics.csv`: one row for each step, appended as the run goes, cut back when a run resumes."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path

from lab.files import write_atomic


class MetricsFile:
    """Append-only table of scalars by step.

    Args:
        path: the file.
        last_step: rows after this step are dropped (a resumed run writes them again), and so is a last row
            that a kill left incomplete.
    """

    def __init__(self, path: Path, last_step: int) -> None:
        self.path = path
        self._columns: list[str] = []
        if not path.exists():
            return
        rows = list(csv.reader(io.StringIO(path.read_text())))
        if not rows or last_step == 0:
            path.unlink()
            return
        self._columns = rows[0]
        kept = [row for row in rows[1:] if len(row) == len(rows[0]) and int(row[0]) <= last_step]
        write_atomic(path, _to_text([self._columns, *kept]))

    def append(self, rows: list[dict[str, float]]) -> None:
        """Append rows, each with a `step`; new names of scalars rewrite the file with a wider header."""
        if not rows:
            return
        names = [name for row in rows for name in row]
        new = [name for name in dict.fromkeys(names) if name not in self._columns]
        if new:
            old = list(csv.DictReader(io.StringIO(self.path.read_text()))) if self.path.exists() else []
            self._columns = ["step", *[name for name in [*self._columns, *new] if name != "step"]]
            table: list[Mapping[str, object]] = [*old, *rows]
            everything = [[str(row.get(name, "")) for name in self._columns] for row in table]
            write_atomic(self.path, _to_text([self._columns, *everything]))
            return
        with self.path.open("a", newline="") as stream:
            stream.write(_to_text([[str(row.get(name, "")) for name in self._columns] for row in rows]))
            stream.flush()
            os.fsync(stream.fileno())


def _to_text(rows: list[list[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()
