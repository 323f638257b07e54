"""Recorded power: a CSV file with the header `seconds,watts`, and its energy."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

from edgetune.errors import DataError, raise_all
from edgetune.files.atomic import write_atomically
from edgetune.meters.ledger import GAP_INTERVALS, EnergyLedger
from edgetune.nouns.energy import EnergyReading, Gap, PowerLimits, PowerSample
from edgetune.nouns.profile import PowerScope

HEADER = ("seconds", "watts")
STEADY_SECONDS = 0.02
"""Assumed of a load that nobody described: an operator or step of training takes that long."""

_PROBLEMS_SHOWN = 10


def write_trace(path: Path, samples: Sequence[PowerSample]) -> None:
    """Write `samples` as such a file; all digits are kept. Raises StorageError."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(HEADER)
    rows.writerows((repr(sample.seconds), repr(sample.watts)) for sample in samples)
    write_atomically(path, text.getvalue().encode())


def read_trace(path: Path) -> tuple[PowerSample, ...]:
    """The samples in such a file, at least two.

    seconds: of any clock, each greater than the one before. watts: finite, not negative.
    Raises DataError naming the lines.
    """
    headline = f"cannot read the power trace {path}"
    samples: list[PowerSample] = []
    problems: list[str] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = tuple(cell.strip() for cell in next(rows, []))
            if header != HEADER:
                raise DataError(f"{headline}: its first line must be {','.join(HEADER)}")
            for row in rows:
                if row and len(problems) < _PROBLEMS_SHOWN:
                    problem = _append(samples, row)
                    problems += [f"line {rows.line_num}: {problem}"] if problem else []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{headline}: {error}") from error
    if not problems and len(samples) < 2:
        problems.append(f"it has {len(samples)} samples, expected two or more")
    raise_all(DataError, headline, problems)
    return tuple(samples)


def _append(samples: list[PowerSample], row: Sequence[str]) -> str:
    """Add the sample of one line; what is wrong with it, empty when nothing is."""
    try:
        seconds, watts = (float(cell) for cell in row)
    except ValueError:
        return f"{','.join(row)!r} is not two numbers"
    if not math.isfinite(seconds) or not (math.isfinite(watts) and watts >= 0):
        return f"{','.join(row)!r} must be finite, and watts not negative"
    if samples and seconds <= samples[-1].seconds:
        return f"{seconds:g} s is not after the {samples[-1].seconds:g} s before it"
    samples.append(PowerSample(seconds, watts))
    return ""


def longest_interval(samples: Sequence[PowerSample]) -> float:
    """Seconds between two samples above which a trace has a gap there."""
    return GAP_INTERVALS * median(b.seconds - a.seconds for a, b in pairwise(samples))


def trace_energy(
    samples: Sequence[PowerSample],
    scope: PowerScope,
    source: str = "a recorded trace",
    limits: PowerLimits | None = None,
    steady_seconds: float = STEADY_SECONDS,
) -> EnergyReading:
    """Energy from the first sample to the last; two samples or more, as `read_trace` gives them.

    limits: what the power lay between, if known.
    steady_seconds: how long the load stays as it is after a change, at least. In intervals longer
        than that, and in gaps (over four times the median), the power may have been anything within
        its range: the error bound is then wide. math.inf is right for a meter that averages over
        its interval.
    """
    longest = longest_interval(samples)
    ledger = EnergyLedger(samples[0].seconds, limits)
    gaps = []
    for before, sample in zip((samples[0], *samples), samples, strict=False):
        passed = sample.seconds - before.seconds
        if passed > longest:
            gaps.append(Gap(before.seconds, sample.seconds, "the trace has no samples here"))
        ledger.add_watts(sample.seconds, sample.watts, passed > min(longest, steady_seconds))
    start, end = EnergyLedger(samples[0].seconds).totals, ledger.totals
    return EnergyReading(
        joules=end.joules,
        error_bound_joules=ledger.sampled_bound(start, end, 0.0),
        seconds=end.seconds - start.seconds,
        scope=scope,
        source=source,
        samples=end.samples,
        kind="replayed",
        gaps=tuple(gaps),
    )
