"""A bundle's folder: its manifest, and the digests that guard every file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgetune.errors import BundleError, raise_all
from edgetune.nouns.bundle_names import MANIFEST
from edgetune.nouns.manifest import FORMATS, SCHEMA_VERSION, Manifest
from edgetune.nouns.plain import from_plain, to_plain

_CHUNK_BYTES = 2**20


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """The manifest of the bundle in `folder`, and the SHA-256 of its bytes.

    Raises BundleError when there is no bundle, when it is of a newer schema, or damaged.
    """
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"no bundle at {folder}: cannot read {MANIFEST} ({error.strerror}); expected a folder "
            f"written by `edgetune export`{_bundles_in(folder)}"
        ) from error
    try:
        plain = json.loads(data)
        _check_schema(plain, path)
        return from_plain(Manifest, plain, "manifest"), hashlib.sha256(data).hexdigest()
    except ValueError as error:
        raise BundleError(f"{path} is damaged: {error}; export or copy the bundle again") from error


def _bundles_in(folder: Path) -> str:
    """A hint where `folder` holds one bundle per format."""
    inner = [str(folder / name) for name in FORMATS if (folder / name / MANIFEST).is_file()]
    return f"; it holds the bundles {' and '.join(inner)}: name one of them" if inner else ""


def _check_schema(plain: Any, path: Path) -> None:
    schema = plain.get("schema") if isinstance(plain, dict) else None
    if type(schema) is not int or plain.get("format") not in FORMATS:
        raise BundleError(f"{path} is not the manifest of an edgetune bundle")
    if schema > SCHEMA_VERSION:
        raise BundleError(
            f"the bundle has schema {schema}, this edgetune reads up to {SCHEMA_VERSION}: upgrade "
            "edgetune on this device, or export the bundle with the version installed here"
        )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json into `folder`, sorted and indented: same manifest, same bytes."""
    text = json.dumps(to_plain(manifest), indent=1, sort_keys=True, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def digests_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in `folder` but the manifest, by name."""
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    return {path.name: _digest(path) for path in files}


def check_digests(folder: Path, digests: Mapping[str, str]) -> None:
    """Raises one BundleError naming every file that is missing or not what was exported."""
    problems = []
    for name, expected in digests.items():
        path = folder / name
        if Path(name).name != name or name in ("", ".."):
            problems.append(f"{name!r} is no name of a file in a bundle")
        elif not path.is_file():
            problems.append(f"{name} is missing")
        elif _digest(path) != expected:
            problems.append(f"{name} is not what was exported (its SHA-256 differs)")
    raise_all(BundleError, f"the bundle {folder} is damaged; copy it again", problems)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
