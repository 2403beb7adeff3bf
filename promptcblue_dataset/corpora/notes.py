"""What was found wrong in a raw file, counted, so that nothing is mended or skipped silently."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

#: ``mended``: put right. ``skipped``: left out. ``kept``: seen and left as it is.
Action = Literal["mended", "skipped", "kept"]

_EXAMPLES, _EXAMPLE_LENGTH = 5, 160


@dataclass
class Finding:
    """One kind of flaw in a file.

    Attributes:
        times: how often it was found.
        records: numbers of the records it was found in, from 1.
        examples: what some of them look like.
    """

    times: int = 0
    records: dict[int, None] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)


@dataclass
class FileNotes:
    """What was read of one raw file, or of one folder whose files are records.

    Attributes:
        path: the file or folder, for messages.
        records: how many records it has.
        skipped: how many of them gave no sample.
        findings: its flaws by what became of them and kind.
    """

    path: Path
    records: int = 0
    skipped: int = 0
    findings: dict[tuple[Action, str], Finding] = field(default_factory=dict)

    def add(self, action: Action, kind: str, record: int, example: str = "") -> None:
        """Count a flaw of a record."""
        finding = self.findings.setdefault((action, kind), Finding())
        finding.times += 1
        finding.records[record] = None
        if example and len(finding.examples) < _EXAMPLES:
            # JSON can escape half of a surrogate pair, which no file in UTF-8 can hold.
            readable = example[:_EXAMPLE_LENGTH].encode("utf-8", "replace").decode()
            finding.examples.append(f"record {record}: {readable}")

    def skip(self, kind: str, record: int, example: str = "") -> None:
        """Count a whole record that gives no sample."""
        self.skipped += 1
        self.add("skipped", kind, record, example)

    def times(self, action: Action) -> int:
        """How many flaws something became of."""
        return sum(finding.times for (done, _), finding in self.findings.items() if done == action)

    def as_json(self) -> list[dict[str, Any]]:
        """Every finding, with the numbers of its records as ranges."""
        return [
            {
                "action": action,
                "kind": kind,
                "times": finding.times,
                "records": ranges(finding.records),
                "examples": finding.examples,
            }
            for (action, kind), finding in self.findings.items()
        ]


def ranges(numbers: Iterable[int]) -> str:
    """Whole numbers in a short form, as ``1-3,7``."""
    runs = []
    for _, run in groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0]):
        found = [number for _, number in run]
        runs.append(str(found[0]) if len(found) == 1 else f"{found[0]}-{found[-1]}")
    return ",".join(runs)
