"""From a bundle's folder to a session, whichever format it is."""

from __future__ import annotations

from pathlib import Path

from edgetune.files.bundle import check_digests, read_manifest
from edgetune.files.delta import apply_delta, read_delta
from edgetune.nouns.bundle_names import TUNED
from edgetune.nouns.manifest import Manifest
from edgetune.runtime.ort_training_session import OrtTrainingSession
from edgetune.runtime.portable_session import PortableSession
from edgetune.runtime.session import TrainingSession


def open_session(folder: Path) -> TrainingSession:
    """Check every digest of the bundle in `folder` and open it, a delta applied to it included.

    Raises BundleError for a damaged bundle, RuntimeSetupError when the installed packages cannot
    execute its format.
    """
    session = open_as_exported(folder)
    if TUNED in session.manifest.digests:
        shares = session.manifest.plan.selection.shares
        session.load_values(apply_delta(read_delta(folder / TUNED), session.values(), shares))
    return session


def open_as_exported(folder: Path) -> TrainingSession:
    """As `open_session`, with the values of the export: what the self-test was recorded with."""
    manifest, digest = read_manifest(folder)
    check_digests(folder, manifest.digests)
    return open_checked(folder, manifest, digest)


def open_checked(folder: Path, manifest: Manifest, digest: str) -> TrainingSession:
    """As `open_as_exported`, where the caller has read the manifest and checked the digests."""
    if manifest.format == "ort-training":
        return OrtTrainingSession(folder, manifest, digest)
    return PortableSession(folder, manifest, digest)
