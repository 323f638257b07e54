"""Which optimizer a bundle's update graph runs, and its numbers."""

from __future__ import annotations

from dataclasses import dataclass

from edgetune.errors import UsageError

KINDS = ("adamw", "sgd", "sgd-momentum", "sgd-nesterov")


@dataclass(frozen=True)
class Optimizer:
    """An optimizer as in torch.optim; `kind` fixes the graph, the numbers are its inputs.

    kind: one of KINDS. weight_decay: decoupled for AdamW, added to the gradient for SGD.
    """

    kind: str = "adamw"
    weight_decay: float = 0.0
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"unknown optimizer {self.kind!r}: expected one of {', '.join(KINDS)}")

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the state arrays kept per trainable tensor."""
        return {"adamw": ("exp_avg", "exp_avg_sq"), "sgd": ()}.get(self.kind, ("momentum_buffer",))

    def hyperparameters(self) -> dict[str, float]:
        """The numbers that the update graph takes as scalar inputs, by input name."""
        if self.kind == "adamw":
            return {
                "weight_decay": self.weight_decay,
                "beta1": self.beta1,
                "beta2": self.beta2,
                "epsilon": self.epsilon,
            }
        numbers = {"weight_decay": self.weight_decay}
        return numbers if self.kind == "sgd" else {**numbers, "momentum": self.momentum}
