"""A bundle that starts from a delta: the same files, and the delta beside them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from edgetune.errors import UsageError
from edgetune.files.atomic import new_folder
from edgetune.files.bundle import digests_of, write_manifest
from edgetune.files.delta import apply_delta, read_delta, write_delta
from edgetune.nouns.bundle_names import TUNED
from edgetune.runtime.open_session import open_as_exported, open_session


def write_tuned_bundle(bundle: Path, delta: Path, out: Path) -> None:
    """Write the bundle in `bundle`, with `delta` applied to its values, to the folder `out`.

    The export's own values stay in the bundle, so that its self-test still means what it says.
    Raises BundleError when the delta does not fit, UsageError when `out` exists.
    """
    if out.exists():
        raise UsageError(f"--out {out} exists: choose a new folder")
    present = open_session(bundle)
    exported = open_as_exported(bundle)
    shares = exported.manifest.plan.selection.shares
    tuned = apply_delta(read_delta(delta), present.values(), shares)
    with new_folder(out) as folder:
        for name in exported.manifest.digests:
            shutil.copyfile(bundle / name, folder / name)
        write_delta(folder / TUNED, exported.values(), tuned, exported.digest, shares)
        manifest = replace(exported.manifest, digests=digests_of(folder))
        write_manifest(folder, manifest)
