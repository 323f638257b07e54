"""What PyTorch computed for a recorded batch, and whether a session computes the same.

The exporter runs it on whole tensors before a bundle is written; the bundle keeps a thinned copy,
with which the device checks itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgetune.errors import BundleError
from edgetune.files.npz import npz_bytes, read_npz
from edgetune.nouns.bundle_names import SELF_TEST
from edgetune.runtime.session import Array, Arrays, MicroBatch, TrainingSession

# Gradients agree when they differ by at most RELATIVE of the tensor's largest, or by OF_LARGEST of
# the model's largest: behind a softmax some gradients are zero but for rounding.
RELATIVE, OF_LARGEST = 2e-3, 1e-5
LOSS_RELATIVE = 1e-4
# Behind a prefix in 8 bits: what lies on the edge between two steps is rounded either way by what
# comes before it in fp32, which differs from processor to processor.
INT8_LOOSER = 10
# New values agree within this share of the change that the update made, and fp32 rounding.
UPDATE_RELATIVE = 1e-3
_FP32_ROUNDING = 1e-6

LEARNING_RATE = 1e-3
CLIP_NORMS = (None, None, 1.0)  # one per recorded update
_KEPT_ELEMENTS = 1024

PYTORCH = "PyTorch"
_REFERENCE = "reference"  # in the file only where it is another


@dataclass(frozen=True, eq=False)
class SelfTest:
    """A recorded step.

    batch: one micro-batch of the plan. loss, gradients: of the initial values, by PyTorch autograd.
    updates: values after each of three torch.optim updates with `synthetic_gradients`.
    Tensors may be thinned: flat, every k-th element, at most 1,024 of them.
    reference: who computed it; another than PyTorch agreed with PyTorch itself.
    """

    batch: MicroBatch
    loss: float
    gradients: Mapping[str, Array]
    updates: tuple[Mapping[str, Array], ...]
    reference: str = PYTORCH


@dataclass(frozen=True)
class SelfTestReport:
    """Largest deviations, each as a share of what is tolerated, and what exceeds it."""

    loss: float
    gradients: float
    updates: float
    problems: tuple[str, ...]


def synthetic_gradients(values: Arrays, update: int) -> dict[str, Array]:
    """Gradients for checking the optimizer alone: the same on every platform."""
    generator = np.random.Generator(np.random.PCG64(update))
    return {
        name: generator.standard_normal(value.shape, np.float32) for name, value in values.items()
    }


def thin(array: Array) -> Array:
    """At most 1,024 evenly spaced elements of `array`, flat."""
    flat = array.reshape(-1)
    return flat[:: -(-flat.size // _KEPT_ELEMENTS) or 1]


def run_self_test(session: TrainingSession, recorded: SelfTest) -> SelfTestReport:
    """Compare `session`, freshly opened, with the recording; leaves the session as it was."""
    before = session.state()
    problems: list[str] = []
    session.discard()
    pieces = _in_pieces(recorded.batch, session.manifest.plan.micro_batch)
    loss = sum(session.accumulate(piece).loss for piece in pieces)
    looser = INT8_LOOSER if session.manifest.plan.precision == "int8" else 1
    allowed = looser * LOSS_RELATIVE * max(abs(recorded.loss), 1e-3)
    loss_share = abs(loss - recorded.loss) / allowed
    if not loss_share <= 1:
        problems.append(f"the loss is {loss:.7g}, {recorded.reference}'s is {recorded.loss:.7g}")
    gradient_share = _compare_gradients(session.gradients(), recorded.gradients, looser, problems)
    session.discard()
    update_share = _compare_updates(session, recorded, problems)
    session.load_state(before)
    return SelfTestReport(loss_share, gradient_share, update_share, tuple(problems))


def run_every_self_test(session: TrainingSession, recorded: SelfTest) -> SelfTestReport:
    """`run_self_test`, and again in the smaller pieces that the bundle carries, if it does.

    The report is that of the first, with the problems of both. Leaves the session in the last.
    """
    report = run_self_test(session, recorded)
    problems = list(report.problems)
    while session.smaller():
        pieces = f"in pieces of {session.manifest.plan.micro_batch} samples, "
        problems += [pieces + problem for problem in run_self_test(session, recorded).problems]
    return replace(report, problems=tuple(problems))


def _in_pieces(batch: MicroBatch, size: int) -> Iterator[MicroBatch]:
    """The batch as it is, or in pieces of `size` samples, which divides it."""

    def rows(arrays: Arrays, start: int) -> dict[str, Array]:
        return {name: array[start : start + size] for name, array in arrays.items()}

    for start in range(0, len(batch.scale), size):
        scale = batch.scale[start : start + size]
        yield MicroBatch(rows(batch.inputs, start), rows(batch.targets, start), scale)


def _compare_gradients(
    found: Arrays, expected: Arrays, looser: float, problems: list[str]
) -> float:
    largest = max((float(np.abs(g).max()) for g in expected.values() if g.size), default=0.0)
    worst = 0.0
    for name, reference in expected.items():
        values = _like(found[name], reference)
        scale = float(np.abs(reference).max()) if reference.size else 0.0
        allowed = looser * (RELATIVE * scale + OF_LARGEST * largest) + 1e-12
        share = float(np.abs(values - reference).max(initial=0.0)) / allowed
        if not share <= 1:
            problems.append(
                f"the gradient of {name} is off by {share * allowed:.3g}, largest {scale:.3g}"
            )
        worst = max(worst, share)
    return worst


def _compare_updates(session: TrainingSession, recorded: SelfTest, problems: list[str]) -> float:
    worst = 0.0
    previous = session.values()
    for number, expected in enumerate(recorded.updates):
        session.load_gradients(synthetic_gradients(previous, number))
        session.update(LEARNING_RATE, CLIP_NORMS[number])
        current = session.values()
        for name, reference in expected.items():
            found = _like(current[name], reference)
            change = float(np.abs(reference - _like(previous[name], reference)).max(initial=0.0))
            allowed = UPDATE_RELATIVE * change + _FP32_ROUNDING * np.maximum(np.abs(reference), 1)
            share = float((np.abs(found - reference) / allowed).max(initial=0.0))
            if not share <= 1:
                whose = "torch.optim" if recorded.reference == PYTORCH else recorded.reference
                problems.append(f"update {number + 1} of {name} differs from {whose}'s")
            worst = max(worst, share)
        previous = current
    return worst


def _like(array: Array, reference: Array) -> Array:
    """`array` thinned the way `reference` is."""
    return array if array.shape == reference.shape else thin(array)


def write_self_test(folder: Path, recorded: SelfTest) -> None:
    """Write selftest.npz into `folder`, tensors thinned."""
    arrays: dict[str, Array] = {
        "loss": np.asarray(recorded.loss, np.float64),
        "scale": recorded.batch.scale,
    }
    arrays.update({f"input:{name}": value for name, value in recorded.batch.inputs.items()})
    arrays.update({f"target:{name}": value for name, value in recorded.batch.targets.items()})
    arrays.update({f"gradient:{name}": thin(g) for name, g in recorded.gradients.items()})
    for number, values in enumerate(recorded.updates):
        arrays.update({f"update{number}:{name}": thin(v) for name, v in values.items()})
    if recorded.reference != PYTORCH:
        arrays[_REFERENCE] = np.frombuffer(recorded.reference.encode(), np.uint8)
    (folder / SELF_TEST).write_bytes(npz_bytes(arrays))


def read_self_test(folder: Path) -> SelfTest:
    """The recording of the bundle in `folder`. Raises BundleError when it cannot be read."""
    path = folder / SELF_TEST
    try:
        arrays = read_npz(path)
        scale, loss = arrays["scale"], float(arrays["loss"])
        named = _REFERENCE in arrays
        reference = arrays[_REFERENCE].tobytes().decode() if named else PYTORCH
    except (ValueError, KeyError) as error:
        raise BundleError(f"cannot read {path}: {error}; copy the bundle again") from error
    updates = tuple(_with_prefix(arrays, f"update{n}:") for n in range(len(CLIP_NORMS)))
    batch = MicroBatch(_with_prefix(arrays, "input:"), _with_prefix(arrays, "target:"), scale)
    return SelfTest(batch, loss, _with_prefix(arrays, "gradient:"), updates, reference)


def _with_prefix(arrays: Arrays, prefix: str) -> dict[str, Array]:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
