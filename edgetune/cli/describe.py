"""A plan in words, to be read in five seconds, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from edgetune.nouns.plain import to_plain
from edgetune.nouns.plan import Certificate, UpdatePlan
from edgetune.units import format_bytes, format_joules, format_seconds

# What may bind, as edgetune.planning.limits has it, which training on a device does without.
MEMORY, STEP_ENERGY, RUN_ENERGY, TIME = "memory", "energy per step", "energy per run", "time"

_WIDTH = 80  # of a list of names, in characters
_MORE_BYTES = 16 * 2**20  # what prices are quoted for: so much more memory,
_MORE_SHARE = 0.1  # or so much more of another budget
_ZERO = 1e-9  # scores this close, relatively, are equal


def describe_plan(plan: UpdatePlan) -> str:
    """A plan in a few lines."""
    lines = [
        ("device", plan.device),
        (
            "trainable",
            f"{plan.trainable_count:,} of {plan.parameter_count:,} parameters "
            f"({_percent(plan.trainable_share)}) in {_count(plan.selection.trainable, 'tensor')}",
        ),
        *(("", line) for line in _kinds(plan)),
        ("batch", _batch(plan)),
        ("peak memory", _memory(plan)),
        ("step", _step(plan)),
        *_run(plan),
        *_certificate(plan),
    ]
    return "\n".join(f"{label:<13}{text}" for label, text in lines)


def plan_json(plan: UpdatePlan) -> dict[str, Any]:
    """The plan, with its certificate's numbers on top; None where the user chose."""
    certificate = plan.certificate
    return {
        **to_plain(plan),
        "objective": certificate.objective if plan.scores else None,
        "bound": certificate.bound,
        "gap": certificate.gap,
        "binding": list(certificate.binding),
        "prices": dict(certificate.prices),
    }


def candidate_names(plan: UpdatePlan) -> list[str]:
    """What is trained by the names of candidates: `PARAMETER`, or `PARAMETER:in/4` of a share.

    Without scores, which know the share's name, `PARAMETER:3 slices`.
    """
    names = {name.partition(":")[0]: name for name in plan.scores if ":" in name}
    for parameter, share in plan.selection.shares.items():
        names.setdefault(parameter, f"{parameter}:{len(share.indices)} slices")
    return [names.get(parameter, parameter) for parameter in plan.selection.trainable]


def by_criterion(criterion: str) -> str:
    """What the scores measure, in words."""
    return "your scores" if criterion == "user" else criterion


def few(names: Sequence[str]) -> str:
    """The first names, as many as a line holds, and how many more there are."""
    shown = 1
    while shown < len(names) and sum(map(len, names[: shown + 1])) + 2 * shown <= _WIDTH:
        shown += 1
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _kinds(plan: UpdatePlan) -> Iterator[str]:
    """The candidates by kind: whole tensors, and shares such as in/4; the most important first."""
    kinds: dict[str, list[str]] = {}
    for name in sorted(candidate_names(plan), key=lambda name: -plan.scores.get(name, 0.0)):
        parameter, _, share = name.partition(":")
        kinds.setdefault(share, []).append(parameter)
    for share, names in sorted(kinds.items()):
        noun = f"share{'s' if len(names) > 1 else ''} {share}" if share else "whole"
        yield f"{len(names)} {noun}: {few(names)}"


def _batch(plan: UpdatePlan) -> str:
    again = "; light activations are made again in the backward" if plan.recomputes else ""
    prefix = "; the frozen part in 8 bits" if plan.precision == "int8" else ""
    sizes = f"{plan.batch} in micro-batches of {plan.micro_batch}"
    return f"{sizes}, {plan.optimizer.kind}{again}{prefix}"


def _memory(plan: UpdatePlan) -> str:
    cost = plan.cost
    return (
        f"{format_bytes(cost.peak_bytes)} predicted{_of(plan.budget.memory_bytes, format_bytes)}: "
        f"process {format_bytes(cost.base_bytes)}, weights {format_bytes(cost.weight_bytes)}, "
        f"optimizer {format_bytes(cost.state_bytes)}, "
        f"activations {format_bytes(cost.activation_bytes)}"
    )


def _step(plan: UpdatePlan) -> str:
    # A bound: no profile knows onnxruntime's overhead per operator before it is calibrated.
    seconds, joules = plan.cost.seconds, plan.cost.joules
    duration = "unknown time" if seconds is None else f"at least {format_seconds(seconds)}"
    energy = "unknown energy" if joules is None else format_joules(joules)
    return (
        f"{duration}{_of(plan.budget.step_seconds, format_seconds)}, "
        f"{energy}{_of(plan.budget.energy_joules, format_joules)} predicted"
    )


def _run(plan: UpdatePlan) -> Iterator[tuple[str, str]]:
    steps, seconds, joules = plan.budget.run_steps, plan.cost.seconds, plan.cost.joules
    if steps is not None and seconds is not None and joules is not None:
        energy = format_joules(joules * steps)
        allowed = _of(plan.budget.run_energy_joules, format_joules)
        duration = format_seconds(seconds * steps)
        yield "run", f"{steps:,} steps: at least {duration}, {energy}{allowed} predicted"


def _of(bound: Any, written: Any) -> str:
    return "" if bound is None else f" of {written(bound)} allowed"


def _certificate(plan: UpdatePlan) -> Iterator[tuple[str, str]]:
    certificate = plan.certificate
    if plan.scores and certificate.everything:
        captured = certificate.objective / certificate.everything
        yield (
            "importance",
            f"{_percent(captured)} of all there is, by {by_criterion(plan.criterion)}",
        )
    if certificate.bound is None or certificate.gap is None:
        yield "certificate", f"none: you chose by {certificate.method}"
        return
    if certificate.gap <= _ZERO:
        optimal = "optimal: no selection within this budget has more importance (gap 0)"
        yield "certificate", optimal
    else:
        gap = f"{certificate.gap:.2%}".replace("%", " %")
        yield "certificate", f"within {gap} of the best possible (gap {certificate.gap:.2g})"
    held = [_held_back(name, plan) for name in certificate.binding]
    if held:
        yield "held back by", "; ".join(held)


def _held_back(name: str, plan: UpdatePlan) -> str:
    """The budget, and what a little more of it would buy, by the price of the relaxation."""
    budget, certificate = plan.budget, plan.certificate
    amounts = {
        MEMORY: (_MORE_BYTES, "16 MiB more"),
        STEP_ENERGY: _more(budget.energy_joules, format_joules),
        RUN_ENERGY: _more(budget.run_energy_joules, format_joules),
        TIME: _more(budget.step_seconds, format_seconds),
    }
    amount, words = amounts[name]
    gain = _gain(certificate, amount * certificate.prices.get(name, 0.0))
    return f"{name}: {words} would buy about {_percent(gain)} more importance" if gain else name


def _more(bound: float | None, written: Any) -> tuple[float, str]:
    extra = _MORE_SHARE * (bound or 0.0)
    return extra, f"{_MORE_SHARE:.0%} more ({written(extra)})".replace("%", " %")


def _gain(certificate: Certificate, gain: float) -> float:
    """As a share of everything, and no more than is left."""
    left = certificate.everything - certificate.objective
    return min(gain, left) / certificate.everything if certificate.everything else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _count(names: Sequence[str], noun: str) -> str:
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'}"
