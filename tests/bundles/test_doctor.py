"""`edgetune doctor BUNDLE` on this machine, by the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundles.cases import ORT_TRAINING
from tests.bundles.support import Ran, bundle_of, copy_of, edgetune, listing

BUNDLE = "multi_label"


def verdicts(ran: Ran) -> dict[str, str]:
    return {f["topic"]: f["verdict"] for f in ran.json["findings"] if "bundle" in f["topic"]}


def test_a_bundle_that_can_be_trained_here_has_no_problem(tmp_path: Path) -> None:
    bundle = copy_of(BUNDLE, tmp_path)
    before = listing(tmp_path)
    ran = edgetune("doctor", bundle, "--json")
    assert ran.code == 0, ran.out
    found = verdicts(ran)
    assert found.pop("bundle profile") in ("ok", "note")  # the board that this runs on may be known
    topics = ("bundle", "bundle memory", "bundle runs", "bundle disk")
    assert found == dict.fromkeys(topics, "ok")
    assert listing(tmp_path) == before
    assert "its self-test agrees with PyTorch" in edgetune("doctor", bundle).out


def test_a_damaged_bundle_is_a_problem_and_is_not_run(tmp_path: Path) -> None:
    bundle = copy_of(BUNDLE, tmp_path)
    (bundle / "update.onnx").write_bytes(b"")
    ran = edgetune("doctor", bundle, "--json")
    assert ran.code == 1
    assert verdicts(ran) == {"bundle": "problem"}
    assert "update.onnx is not what was exported" in ran.out


def test_a_format_that_these_packages_cannot_run_is_a_problem() -> None:
    try:
        import onnxruntime.training.api  # noqa: F401, PLC0415 - which environment is this?
    except ImportError:
        ran = edgetune("doctor", bundle_of(ORT_TRAINING), "--json")
        assert ran.code == 1
        assert verdicts(ran)["bundle runs"] == "problem"
        assert "export with --format portable" in ran.out
    else:
        pytest.skip("this environment can")
