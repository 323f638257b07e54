"""What the tests of `edgetune doctor` share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgetune.doctor.finding import Finding
from tests.device.guard_cases import cgroup_v2, limit_v2


def one(findings: Iterable[Finding], topic: str) -> Finding:
    """The finding of that topic. Whoever is told of a fault is told what to do."""
    (found,) = [finding for finding in findings if finding.topic == topic]
    assert found.advice or found.verdict == "ok"
    return found


def limited(root: Path) -> None:
    """A process in a cgroup of 300 MiB, of which 100 are used."""
    limit_v2(cgroup_v2(root, "/job") / "job", 300, 100)
