"""Calibrating this machine and profiling bundles on it, by the commands; no time is asserted."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetune.files.device_profiles import load_profile
from tests.bundles.cases import ORT_TRAINING
from tests.bundles.support import Ran, bundle_of, data_of, edgetune

# What cannot be measured here, on a machine of which this one may be a part.
BASE = """
id = "base"
name = "Base"
cpu = "any"
cores = 1
power_scope = "wall"
total_memory_bytes = { value = 1e15, kind = "vendor", source = "made up", date = "2026" }
idle_watts = { value = 2, kind = "measured", source = "plug", date = "2026" }
load_watts = { value = 9, kind = "measured", source = "plug", date = "2026" }
"""


def calibrate(folder: Path, base: str) -> Ran:
    (folder / "base.toml").write_text(base)
    options = ("--seconds", "1s", "--device", folder / "base.toml", "--json")
    return edgetune("calibrate", "--out", folder / "out" / "here.toml", *options)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrated")
    ran = calibrate(folder, BASE)
    assert ran.code == 0, ran.err
    out = folder / "out" / "here.toml"
    assert ran.json["profile"] == str(out)
    assert ran.json["calibration"]["storage"]["write_bytes_per_second"] > 0
    assert [path.name for path in out.parent.iterdir()] == ["here.toml"]
    return out


def test_what_cannot_be_true_beside_its_base_is_not_written(tmp_path: Path) -> None:
    ran = calibrate(tmp_path, BASE.replace("1e15", "1e6"))
    assert ran.code == 4
    assert "usable_memory_bytes: found" in ran.err and "leave --device out" in ran.err
    assert [path.name for path in tmp_path.rglob("*.toml")] == ["base.toml"]


def test_a_calibrated_profile_is_taken_wherever_a_device_is(calibrated: Path) -> None:
    profile = load_profile(str(calibrated))
    assert profile.id == "here"
    assert profile.dispatch_seconds is not None
    assert profile.load_watts is not None
    assert profile.load_watts.source.endswith("taken over from base")
    shown = edgetune("devices", calibrated)
    assert shown.code == 0 and "prefix_depthwise" in shown.out
    assert edgetune("replan", bundle_of("multi_label"), "--device", calibrated).code in (0, 2)


def test_a_profile_says_what_a_step_takes_and_where(calibrated: Path) -> None:
    name = "mobilenet_v3_small"
    ran = edgetune("profile", bundle_of(name), "--repeat", "2", "--device", calibrated, "--json")
    assert ran.code == 0, ran.err
    (report,) = ran.json["bundles"]
    assert report["device"] == "here"
    assert report["measured"]["steps"] == 2
    assert 0 < report["measured"]["median_seconds"] <= report["measured"]["p95_seconds"]
    assert report["predicted"]["seconds"] > 0
    assert "Conv" in [item["name"] for item in report["operators"]]
    modules = " ".join(item["name"] for item in report["modules"])
    assert "features.12" in modules and "(update.onnx)" in modules


@pytest.mark.parametrize(
    ("budget", "code", "said"),
    [
        pytest.param(("--memory", "64GiB"), 0, None, id="within"),
        pytest.param(("--memory", "1MiB"), 5, "memory exceeded by", id="memory"),
        pytest.param(("--step-seconds", "1us"), 5, "step exceeded by", id="time"),
    ],
)
def test_a_budget_that_is_exceeded_has_an_exit_code(
    budget: tuple[str, str], code: int, said: str | None
) -> None:
    ran = edgetune("profile", bundle_of("regression"), "--repeat", "2", *budget)
    assert ran.code == code
    assert "verdict" in ran.out
    if said is None:
        assert "exceeded" not in ran.out
    else:
        assert said in ran.err and "exceeded by" in ran.out


def test_bundles_stand_side_by_side_whatever_their_data() -> None:
    names = ("regression", "multi_label")
    ran = edgetune("profile", *map(bundle_of, names), "--repeat", "2", "--compare")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert len(lines) == 3
    assert [str(bundle_of(name)) in line for name, line in zip(names, lines[1:], strict=True)]
    assert "100%" in lines[1]


def test_data_of_ones_own_are_trained_on() -> None:
    name = "cnn1d"
    ran = edgetune("profile", bundle_of(name), "--data", data_of(name), "--repeat", "2", "--json")
    assert ran.code == 0, ran.err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        pytest.param(("profile", "nowhere"), 6, "no bundle at nowhere", id="no-bundle"),
        pytest.param(
            ("profile", bundle_of("regression"), "--repeat", "1"), 2, "at least 2", id="one-step"
        ),
        pytest.param(("calibrate", "--out", "here.json"), 2, "ends in .toml", id="no-toml"),
        pytest.param(("calibrate", "--seconds", "1ms"), 2, "at least 1s", id="too-short"),
        pytest.param(("calibrate", "--device", "zx81"), 4, "unknown device 'zx81'", id="base"),
        pytest.param(
            ("calibrate", "--seconds", "1s", "--storage", "/proc"), 10, "--storage", id="storage"
        ),
    ],
)
def test_what_cannot_be_done_is_one_error(
    options: tuple[str | Path, ...],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = edgetune(*options)
    assert ran.code == code and said in ran.err and "Traceback" not in ran.err
    assert ran.err.count("edgetune: error: ") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_other_format_is_profiled_without_its_operators() -> None:
    pytest.importorskip("onnxruntime.training.api", exc_type=ImportError)
    ran = edgetune("profile", bundle_of(ORT_TRAINING), "--repeat", "2", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["bundles"][0]["operators"] == []
