"""The dense step in a bundle, from which the device plans again."""

from __future__ import annotations

import json
from pathlib import Path

from edgetune.errors import BundleError
from edgetune.files.bundle import check_digests
from edgetune.nouns.bundle_names import COSTS
from edgetune.nouns.manifest import Manifest
from edgetune.nouns.plain import from_plain
from edgetune.nouns.step_graph import StepGraph


def read_cost_table(folder: Path, manifest: Manifest) -> StepGraph:
    """The step graph of the bundle in `folder`. Raises BundleError when missing or damaged."""
    if COSTS not in manifest.digests:
        raise BundleError(
            f"the bundle {folder} has no {COSTS}, which bundles of the format portable have: "
            "export it with --format portable to plan again on the device"
        )
    check_digests(folder, {COSTS: manifest.digests[COSTS]})
    path = folder / COSTS
    try:
        return from_plain(StepGraph, json.loads(path.read_bytes()), "costs")
    except ValueError as error:
        raise BundleError(f"{path} is damaged: {error}; export or copy the bundle again") from error
