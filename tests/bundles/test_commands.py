"""Every command of the command line on real bundles: what it prints, with and without --json."""

from __future__ import annotations

import json
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from edgetune.cli.main import build_parser
from edgetune.files.delta import read_delta
from edgetune.runtime.open_session import open_session
from tests.bundles.cases import CASES, ORT_TRAINING
from tests.bundles.support import (
    PYTHON,
    assert_one_error,
    bundle_of,
    data_of,
    edgetune,
    subprocess_environment,
    train,
)

OPTIONS = {
    "devices": ["--json"],
    "plan": ["--device", "--memory", "--energy-per-step", "--step-seconds", "--train", "--json"],
    "export": ["--device", "--memory", "--train", "--format", "--out", "--optimizer", "--json"],
    "verify": ["--json"],
    "train": ["--data", "--validation", "--epochs", "--learning-rate", "--schedule", "--resume"],
    "evaluate": ["--data", "--delta", "--checkpoint", "--json"],
    "merge": ["--delta", "--checkpoint", "--out"],
    "delta make": ["--checkpoint", "--out"],
    "delta show": ["--json"],
    "delta apply": ["--to", "--out"],
}


@pytest.mark.parametrize("command", OPTIONS)
def test_help_says_what_the_command_takes(command: str) -> None:
    ran = edgetune(*command.split(), "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"usage: edgetune {command}")
    for option in OPTIONS[command]:
        assert option in ran.out


def test_help_lists_every_command_and_every_exit_code() -> None:
    text = build_parser().format_help()
    for command in OPTIONS:
        assert f"    {command.split()[0]} " in text
    codes = re.findall(r"^ *(\d+)  \w", text, re.MULTILINE)
    assert [int(code) for code in codes] == [*range(11), *range(20, 26), 130]


def test_devices_are_listed_and_described() -> None:
    listed = edgetune("devices", "--json").json
    assert {"generic-x86", "raspberry-pi-4b-4gb"} <= {device["id"] for device in listed}
    table = edgetune("devices")
    assert table.code == 0
    assert len(table.out.splitlines()) == len(listed) + 1
    one = edgetune("devices", "raspberry-pi-4b-4gb")
    assert "load power" in one.out
    described = edgetune("devices", "raspberry-pi-4b-4gb", "--json").json
    assert described["load_watts"]["kind"] in ("measured", "vendor", "derived")
    assert described["load_watts"]["source"] in one.out


def test_every_number_of_a_users_own_device_is_described_with_its_provenance(
    tmp_path: Path,
) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        'id = "own"\nlike = "raspberry-pi-4b-4gb"\nname = "Own"\n'
        'idle_watts = { value = 2, kind = "measured", source = "a plug", date = "2026-11-01" }\n'
    )
    described = edgetune("devices", own, "--json").json
    assert described["id"] == "own"
    ran = edgetune("devices", own)
    assert (ran.code, ran.err) == (0, "")
    assert re.search(r"^idle power +2 W +measured  2026-11-01  a plug$", ran.out, re.M)
    numbers = {**described, **described["flops_per_second"]}.values()
    sourced = [number for number in numbers if isinstance(number, dict) and "source" in number]
    assert len(sourced) == 9
    for number in sourced:
        assert number["source"] in ran.out and number["date"] in ran.out
        assert number["source"].endswith("taken over from raspberry-pi-4b-4gb") or (
            number["source"] == "a plug"
        )


@pytest.mark.parametrize("name", CASES)
def test_verify_passes_and_says_how_well(name: str) -> None:
    ran = edgetune("verify", bundle_of(name))
    assert (ran.code, ran.err) == (0, "")
    assert "gradients and updates agree with PyTorch" in ran.out
    report = edgetune("verify", bundle_of(name), "--json").json
    assert report["report"]["problems"] == []
    assert 0 <= report["report"]["gradients"] <= 1
    assert report["files"] == len(list(bundle_of(name).iterdir())) - 1


def test_train_prints_and_writes_its_result(tmp_path: Path) -> None:
    text = train("cnn1d", tmp_path, "--epochs", "2", "--validation", data_of("cnn1d"))
    assert (text.code, text.err) == (0, "")
    assert re.search(r"^trained      2 epochs, 6 steps: loss \d", text.out)
    assert "validation accuracy" in text.out
    assert f"delta        {tmp_path / 'delta'}" in text.out
    assert f"checkpoint   {tmp_path / 'checkpoint'}" in text.out
    delta = read_delta(tmp_path / "delta")
    assert delta.bundle_digest == open_session(bundle_of("cnn1d")).digest


def test_train_prints_json_and_logs_lines(tmp_path: Path) -> None:
    ran = train("regression", tmp_path, "--json", "--log", tmp_path / "log", "--epochs", "3")
    assert (ran.code, ran.err) == (0, "")
    keys = {"result", "data_bytes", "features", "limits", "energy", "delta", "checkpoint"}
    keys.add("replan")
    assert set(ran.json) == keys
    result = ran.json["result"]
    assert (result["epochs"], result["steps"], result["stopped_early"]) == (3, 9, False)
    assert len(result["history"]) == 3
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["event"] for line in lines] == (["step"] * 3 + ["epoch"]) * 3
    assert lines[-1]["loss"] == result["train_loss"]


def test_without_names_the_results_lie_beside_the_bundle(tmp_path: Path) -> None:
    (tmp_path / "b").symlink_to(bundle_of("regression"))
    bundle = tmp_path / "copy"
    bundle.mkdir()
    for file in bundle_of("regression").iterdir():
        (bundle / file.name).write_bytes(file.read_bytes())
    assert edgetune("train", bundle, "--data", data_of("regression")).code == 0
    written = {path.name for path in tmp_path.iterdir()} - {"b", "copy"}
    assert written == {"copy.checkpoint", "copy.delta.safetensors"}


def test_evaluate_shows_what_training_achieved(tmp_path: Path) -> None:
    name = "cnn1d"
    settings = ("--epochs", "30", "--lr", "0.01")
    result = train(name, tmp_path, *settings, "--validation", data_of(name), "--json").json
    before = edgetune("evaluate", bundle_of(name), "--data", data_of(name), "--json").json
    for source in ("delta", "checkpoint"):
        ran = edgetune(
            *("evaluate", bundle_of(name), "--data", data_of(name)),
            *(f"--{source}", tmp_path / source, "--json"),
        )
        assert ran.json["loss"] == result["result"]["validation_loss"]
        assert ran.json["loss"] < before["loss"] / 2
    text = edgetune("evaluate", bundle_of(name), "--data", data_of(name))
    assert re.fullmatch(r"loss \d+\.\d{5}, accuracy \d+\.\d\d% on 11 samples\n", text.out)
    regression = edgetune("evaluate", bundle_of("regression"), "--data", data_of("regression"))
    assert re.fullmatch(r"loss \d+\.\d{5} on 11 samples\n", regression.out)


def test_merge_and_delta_agree_however_they_are_made(tmp_path: Path) -> None:
    bundle = bundle_of("multi_label")
    assert train("multi_label", tmp_path, "--epochs", "2").code == 0
    made = edgetune(
        *("delta", "make", bundle),
        *("--checkpoint", tmp_path / "checkpoint", "--out", tmp_path / "made"),
    )
    assert re.fullmatch(r"written      .*made \(\d+\.?\d* \w+\)\n", made.out)
    assert (tmp_path / "made").read_bytes() == (tmp_path / "delta").read_bytes()
    models = []
    for source in ("delta", "checkpoint"):
        out = tmp_path / f"{source}.onnx"
        assert edgetune("merge", bundle, f"--{source}", tmp_path / source, "--out", out).code == 0
        models.append(out.read_bytes())
    assert edgetune("merge", bundle, "--out", tmp_path / "base.onnx").code == 0
    applied = edgetune(
        *("delta", "apply", tmp_path / "delta"),
        *("--to", tmp_path / "base.onnx", "--out", tmp_path / "applied.onnx"),
    )
    assert applied.code == 0
    models.append((tmp_path / "applied.onnx").read_bytes())
    assert models[0] == models[1] == models[2]
    assert models[0] != (tmp_path / "base.onnx").read_bytes()


def test_a_delta_is_shown(tmp_path: Path) -> None:
    assert train("multi_label", tmp_path).code == 0
    shown = edgetune("delta", "show", tmp_path / "delta", "--json").json
    assert [row["name"] for row in shown["tensors"]] == sorted(
        ["fc2.weight", "fc2.bias", "head.weight", "head.bias"]
    )
    assert {"name": "head.weight", "shape": [6, 16], "bytes": 384} in shown["tensors"]
    assert shown["bundle"] == open_session(bundle_of("multi_label")).digest
    table = edgetune("delta", "show", tmp_path / "delta").out.splitlines()
    assert table[0].split() == ["tensor", "shape", "bytes"]
    assert len(table) == 5


def test_a_tuned_bundle_verifies_and_evaluates_as_tuned(tmp_path: Path) -> None:
    bundle, data = bundle_of("regression"), data_of("regression")
    assert train("regression", tmp_path, "--epochs", "5", "--lr", "0.1").code == 0
    tuned = tmp_path / "tuned"
    ran = edgetune("delta", "apply", tmp_path / "delta", "--to", bundle, "--out", tuned)
    assert ran.out == f"written      {tuned}\n"
    assert edgetune("verify", tuned).code == 0
    expected = edgetune(
        "evaluate", bundle, "--data", data, "--delta", tmp_path / "delta", "--json"
    ).json
    assert edgetune("evaluate", tuned, "--data", data, "--json").json == expected
    assert edgetune("evaluate", bundle, "--data", data, "--json").json != expected


@pytest.mark.skipif(find_spec("torch") is not None, reason="this is the workstation environment")
@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        pytest.param(
            ("plan", "model.py:make", "--device", "generic-x86"),
            8,
            ["run on a workstation and need", "pip install 'edgetune[export]'"],
            id="plan",
        ),
        pytest.param(
            ("export", "model.py:make", "--device", "generic-x86", "--out", "never"),
            8,
            ["run on a workstation and need"],
            id="export",
        ),
        pytest.param(
            ("verify", bundle_of(ORT_TRAINING)),
            8,
            ["this is an ort-training bundle", "export with --format portable"],
            id="a-bundle-for-the-training-package",
        ),
    ],
)
def test_what_a_device_cannot_do_says_what_it_needs(
    arguments: tuple[str, ...], code: int, parts: list[str]
) -> None:
    assert_one_error(edgetune(*arguments), code, *parts)
    assert not Path("never").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param(["devices", "--json"], 0, id="devices"),
        pytest.param(["verify", str(bundle_of("regression"))], 0, id="verify"),
        pytest.param(["verify", "absent"], 6, id="no-bundle"),
        pytest.param(["dance"], 2, id="unknown-command"),
    ],
)
def test_a_process_of_its_own_ends_with_the_code(arguments: list[str], code: int) -> None:
    ran = subprocess.run(
        [*PYTHON, *arguments],
        capture_output=True,
        text=True,
        env=subprocess_environment(),
        check=False,
    )
    assert ran.returncode == code, ran.stderr
    assert (ran.stdout == "") == (code != 0)
    assert ran.stderr.startswith("edgetune: error: ") == (code != 0)


def test_predictions_of_the_merged_model_need_nothing_of_edgetune(tmp_path: Path) -> None:
    assert edgetune("merge", bundle_of("cnn1d"), "--out", tmp_path / "model.onnx").code == 0
    code = (
        "import sys, numpy, onnxruntime\n"
        "model = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
        "x = numpy.load(sys.argv[2])['windows'][:2]\n"
        "print(model.run(None, {'windows': x})[0].tolist())\n"
        "assert not any(name.startswith('edgetune') for name in sys.modules)\n"
    )
    command = [PYTHON[0], "-c", code, str(tmp_path / "model.onnx"), str(data_of("cnn1d"))]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    session = open_session(bundle_of("cnn1d"))
    with np.load(data_of("cnn1d")) as data:
        expected = session.predict({"windows": data["windows"][:2]})["output"]
    np.testing.assert_allclose(json.loads(ran.stdout), expected, rtol=1e-5, atol=1e-6)
