"""`edgetune plan` and `edgetune export` on the workstation, through the command line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgetune.data.dataset import Dataset
from edgetune.files.bundle import check_digests, read_manifest
from edgetune.files.device_profiles import load_profile
from edgetune.runtime.open_session import open_session
from edgetune.runtime.trainer import Trainer, TrainerConfig
from tests.bundles.support import (
    assert_one_error,
    edgetune,
    listing,
    subprocess_environment,
)

MLP = Path(__file__).resolve().parents[1] / "zoo" / "mlp.py"
MODEL = f"{MLP}:multi_label"
X86, PI = ("--device", "generic-x86"), ("--device", "raspberry-pi-4b-4gb")
PARAMETERS = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "head.weight", "head.bias"]


# plan -----------------------------------------------------------------------------------------


def test_a_plan_is_described() -> None:
    ran = edgetune("plan", MODEL, *PI, "--train", "head.*", "--batch", "4", "--optimizer", "sgd")
    assert (ran.code, ran.err) == (0, "")
    labels = [line[:13].strip() for line in ran.out.splitlines()]
    expected = ["device", "trainable", "", "batch", "peak memory", "step", "certificate"]
    assert labels == expected
    assert "device       raspberry-pi-4b-4gb\n" in ran.out
    assert "102 of 518 parameters (19.7 %) in 2 tensors\n" in ran.out
    assert "             2 whole: head.weight, head.bias\n" in ran.out
    assert "4 in micro-batches of 4, sgd\n" in ran.out
    peak = (
        r"peak memory  \d+\.\d MiB predicted of \d\.\d+ GiB allowed: process \d+\.\d MiB, weights "
    )
    assert re.search(peak, ran.out)
    assert ran.out.endswith("certificate  none: you chose by patterns\n")


def test_a_plan_is_json_for_machines() -> None:
    plan = edgetune("plan", MODEL, *X86, "--train", "*.bias", "--json").json
    assert set(plan) == {
        *("device", "selection", "batch", "micro_batch", "optimizer", "budget", "cost"),
        *("certificate", "parameter_count", "trainable_count", "scores", "criterion"),
        *("precision", "recomputes", "objective", "bound", "gap", "binding", "prices"),
    }
    assert plan["selection"]["trainable"] == ["fc1.bias", "fc2.bias", "head.bias"]
    assert (plan["parameter_count"], plan["trainable_count"]) == (518, 38)
    parts = ("base_bytes", "weight_bytes", "state_bytes", "activation_bytes")
    assert plan["cost"]["peak_bytes"] == sum(plan["cost"][part] for part in parts)


def test_without_patterns_the_most_important_tensors_are_chosen() -> None:
    plan = edgetune("plan", MODEL, *X86, "--json").json
    assert plan["selection"]["trainable"] == PARAMETERS
    assert set(plan["scores"]) == set(PARAMETERS)
    assert min(plan["scores"].values()) > 0
    assert plan["certificate"]["objective"] == pytest.approx(sum(plan["scores"].values()))


def test_a_smaller_budget_is_respected_and_trains_less() -> None:
    everything = edgetune("plan", MODEL, *PI, "--json").json
    budget = everything["cost"]["peak_bytes"] - 1
    less = edgetune("plan", MODEL, *PI, "--memory", f"{budget}B", "--batch", "1", "--json").json
    small = less["cost"]["peak_bytes"]
    assert small <= budget
    none = edgetune("plan", MODEL, *PI, "--memory", f"{small - 2**20}B", "--batch", "1")
    assert_one_error(none, 5, "nothing can be trained on raspberry-pi-4b-4gb", "--memory ")


def test_a_selection_that_does_not_fit_says_by_how_much_and_what_to_do() -> None:
    ran = edgetune("plan", MODEL, *X86, "--train", "*", "--memory", "1MiB")
    assert_one_error(
        ran,
        5,
        "the selection does not fit generic-x86, even in micro-batches of 1: the peak memory is ",
        "the budget 1.0 MiB; select less, or leave the selection out and let edgetune choose",
    )


WRONG = [
    pytest.param(
        [MODEL, *X86, "--train", "head.*", "--train", "haed.weight"],
        2,
        ["'haed.weight' matches no parameter; the nearest names are head.weight"],
        id="pattern",
    ),
    pytest.param([MODEL, *X86, "--memory", "96"], 2, ["'96'", "for example 96MiB"], id="no-unit"),
    pytest.param([MODEL, *X86, "--memory", "5J"], 2, ["cannot read the quantity '5J'"], id="unit"),
    pytest.param([MODEL, *X86, "--energy-per-step", "0J"], 2, ["greater than zero"], id="zero"),
    pytest.param([MODEL, *X86, "--step-seconds", "soon"], 2, ["example 250ms"], id="no-number"),
    pytest.param(
        [MODEL, "--device", "raspberry-pi-4"],
        4,
        ["raspberry-pi-4", "raspberry-pi-4b-4gb"],
        id="device",
    ),
    pytest.param([MODEL], 2, ["required: --device"], id="no-device"),
    pytest.param(
        [MODEL, *X86, "--optimizer", "lion"], 2, ["invalid choice: 'lion'"], id="optimizer"
    ),
    pytest.param(
        [MODEL, *X86, "--batch", "8", "--micro-batch", "3"],
        2,
        ["a micro-batch of 3 does not divide the batch of 8"],
        id="micro-batch",
    ),
    pytest.param([MODEL, *X86, "--batch", "0"], 2, ["at least one sample"], id="batch"),
    pytest.param([str(MLP), *X86], 2, ["expected path/to/file.py:factory"], id="no-factory"),
    pytest.param([f"{MLP}x:make", *X86], 2, ["cannot import"], id="no-module"),
    pytest.param(
        [f"{MLP}:multi_lable", *X86],
        2,
        ["has no function multi_lable; the nearest names are multi_label"],
        id="factory",
    ),
    pytest.param(["absent.py:make", *X86], 2, ["there is no file absent.py"], id="no-file"),
]


@pytest.mark.parametrize(("arguments", "code", "parts"), WRONG)
@pytest.mark.parametrize("command", ["plan", "export"])
def test_what_cannot_be_planned_is_one_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    arguments: list[str],
    code: int,
    parts: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    more = ["--out", "bundle"] if command == "export" else []
    assert_one_error(edgetune(command, *arguments, *more), code, *parts)
    assert list(tmp_path.iterdir()) == []


FACTORIES = """
import torch
from torch import nn

def pair(): return nn.Linear(2, 2), nn.MSELoss()
def no_model(): return "model", (torch.zeros(4, 2), torch.zeros(4, 2)), nn.MSELoss()
def no_loss(): return nn.Linear(2, 2), (torch.zeros(4, 2), torch.zeros(4, 2)), "mse"
def broken(): return undefined
def takes(one): return one
"""


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        pytest.param("pair", ["must return (model, (inputs, targets), loss)"], id="pair"),
        pytest.param("no_model", ["the model is a str, not a torch.nn.Module"], id="model"),
        pytest.param("no_loss", ["the loss is a str, not callable"], id="loss"),
    ],
)
def test_a_factory_that_returns_something_else_is_told_what_is_expected(
    tmp_path: Path, name: str, parts: list[str]
) -> None:
    (tmp_path / "wrong_factory.py").write_text(FACTORIES)
    ran = edgetune("plan", f"{tmp_path / 'wrong_factory.py'}:{name}", *X86)
    assert_one_error(ran, 2, *parts)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        pytest.param(
            "broken", ["broken() raised NameError: name 'undefined' is not defined"], id="raises"
        ),
        pytest.param("takes", ["takes() raised TypeError: "], id="takes-arguments"),
    ],
)
def test_an_error_in_the_users_factory_is_one_line(
    tmp_path: Path, name: str, parts: list[str]
) -> None:
    (tmp_path / "broken_factory.py").write_text(FACTORIES)
    ran = edgetune("plan", f"{tmp_path / 'broken_factory.py'}:{name}", *X86)
    assert_one_error(ran, 2, *parts)


def test_a_device_whose_power_is_unknown_cannot_have_an_energy_budget(tmp_path: Path) -> None:
    assert load_profile("raspberry-pi-zero-2-w").load_watts is None
    ran = edgetune("plan", MODEL, "--device", "raspberry-pi-zero-2-w", "--energy-per-step", "5J")
    assert_one_error(ran, 5, "an energy budget needs its load power")


@pytest.mark.parametrize("missing", ["torch", "onnx"])
@pytest.mark.parametrize("command", ["plan", "export"])
def test_without_the_workstations_packages_the_error_says_what_to_install(
    tmp_path: Path, command: str, missing: str
) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from edgetune.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    more = ["--out", str(tmp_path / "bundle")] if command == "export" else []
    ran = subprocess.run(
        [sys.executable, "-c", code, command, MODEL, *X86, *more],
        capture_output=True,
        text=True,
        env=subprocess_environment(),
        check=False,
    )
    assert ran.returncode == 8
    assert ran.stdout == ""
    assert ran.stderr == (
        f"edgetune: error: planning and exporting run on a workstation and need {missing}: "
        "pip install 'edgetune[export]'\n"
    )
    assert list(tmp_path.iterdir()) == []


# export ---------------------------------------------------------------------------------------


def test_export_writes_a_verified_bundle_and_says_so(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    ran = edgetune("export", MODEL, *X86, "--train", "head.*", "--out", out)
    assert (ran.code, ran.err) == (0, "")
    assert re.search(
        r"^verified     portable: loss, 2 gradients and 3 updates agree with PyTorch "
        r"\(largest deviation \d+\.\d% of what is tolerated\)$",
        ran.out,
        re.MULTILINE,
    )
    assert ran.out.endswith(f"written      {out}\n")
    manifest, _ = read_manifest(out)
    check_digests(out, manifest.digests)
    assert manifest.format == "portable"
    assert manifest.plan.selection.trainable == ("head.weight", "head.bias")
    assert edgetune("verify", out).code == 0


def test_both_formats_come_from_one_plan_and_train_alike(tmp_path: Path) -> None:
    out = tmp_path / "both"
    ran = edgetune(
        *("export", MODEL, *X86, "--train", "head.*", "--batch", "4"),
        *("--format", "portable", "--format", "ort-training", "--out", out, "--json"),
    )
    assert set(ran.json) == {"plan", "verified", "out"}
    assert set(ran.json["verified"]) == {"portable", "ort-training"}
    assert all(report["problems"] == [] for report in ran.json["verified"].values())
    generator = np.random.default_rng(0)
    x = generator.normal(size=(10, 8)).astype(np.float32)
    data = Dataset({"features": x}, {"targets": (x[:, :6] > 0.5).astype(np.float32)})
    trained = {}
    for name in ("portable", "ort-training"):
        session = open_session(out / name)
        assert session.manifest.format == name
        assert ran.json["plan"]["trainable_count"] == session.manifest.plan.trainable_count
        Trainer(session, TrainerConfig(epochs=2, learning_rate=0.01, progress=False)).fit(data)
        trained[name] = session.values()
    for parameter, value in trained["portable"].items():
        np.testing.assert_allclose(trained["ort-training"][parameter], value, atol=1e-5)


def test_equal_exports_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        ran = edgetune("export", MODEL, *X86, "--train", "*", "--out", tmp_path / name)
        assert ran.code == 0
    assert listing(tmp_path / "first") == listing(tmp_path / "second")


def test_a_bundle_may_be_exported_again_and_a_folder_of_others_never(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    for pattern in ("head.*", "fc2.*"):
        assert edgetune("export", MODEL, *X86, "--train", pattern, "--out", out).code == 0
    assert read_manifest(out)[0].plan.selection.trainable == ("fc2.weight", "fc2.bias")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    (tmp_path / "file").write_text("keep me")
    before = listing(tmp_path)
    for name, part in (("mine", "exists and is not a bundle"), ("file", "is a file: expected")):
        ran = edgetune("export", MODEL, *X86, "--train", "head.*", "--out", tmp_path / name)
        assert_one_error(ran, 2, part)
    ran = edgetune("export", MODEL, *X86, "--train", "*", "--out", tmp_path / "file" / "bundle")
    assert_one_error(ran, 10, "cannot write")
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        pytest.param(["--format", "tflite"], 2, ["invalid choice: 'tflite'"], id="format"),
        pytest.param(
            ["--format", "ort-training", "--optimizer", "sgd-momentum"],
            7,
            ["--format portable"],
            id="optimizer-of-the-format",
        ),
    ],
)
def test_what_cannot_be_exported_leaves_nothing(
    tmp_path: Path, arguments: list[str], code: int, parts: list[str]
) -> None:
    out = tmp_path / "bundle"
    ran = edgetune("export", MODEL, *X86, "--train", "head.*", *arguments, "--out", out)
    assert_one_error(ran, code, *parts)
    assert list(tmp_path.iterdir()) == []
