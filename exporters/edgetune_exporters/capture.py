"""PyTorch module to a flat, functional ATen graph of named tensors.

`torch.export` does the work; what is added here is the naming of every input, and frozen
BatchNorm folded away.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._decomp import get_decompositions
from torch.export.graph_signature import InputKind, OutputKind
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from edgetune.errors import ExportError
from edgetune.nouns.folding import FoldedBatchNorm
from edgetune_exporters.fold_batch_norm import fold_batch_norm

# Recurrent layers are written out step by step; every other operator stays as it is until the
# step is differentiated.
_RECURRENT = [
    torch.ops.aten.lstm.input,
    torch.ops.aten.gru.input,
    torch.ops.aten.rnn_tanh.input,
    torch.ops.aten.rnn_relu.input,
]


@dataclass(frozen=True)
class CapturedModel:
    """A model in evaluation mode as a functional graph.

    graph: placeholders in the order of `placeholders`; returns the flat user outputs.
    placeholders: for each placeholder the name in `parameters`, `constants` or `inputs`.
    parameters: floating-point tensors that can be trained, folded BatchNorm included.
    inputs: the sample batch by input name, in the order of the model's signature.
    """

    graph: fx.GraphModule
    placeholders: tuple[str, ...]
    parameters: Mapping[str, Tensor]
    constants: Mapping[str, Tensor]
    inputs: Mapping[str, Tensor]
    output_spec: pytree.TreeSpec
    folded: tuple[FoldedBatchNorm, ...]

    def run(self, tensors: Mapping[str, Tensor]) -> Any:
        """The model's outputs, in its own structure, for tensors by name."""
        flat = fx.Interpreter(self.graph).run(*[tensors[name] for name in self.placeholders])
        return pytree.tree_unflatten(list(flat), self.output_spec)

    def outputs(self) -> Any:
        """The model's outputs for the sample batch."""
        with torch.no_grad():
            return self.run({**self.parameters, **self.constants, **self.inputs})


def capture(model: nn.Module, inputs: Any) -> CapturedModel:
    """Capture `model` in evaluation mode on a sample batch.

    inputs: a tensor, a tuple of tensors (positional), or a dict of tensors (keyword arguments); the
    first dimension of each is the batch. Raises ExportError when torch.export refuses the model, or
    when it computes in another type than float32.
    """
    arguments, keywords = _as_call(inputs)
    named = _name_inputs(model, arguments, keywords)
    with evaluation_mode(model), quiet(), sdpa_kernel(SDPBackend.MATH):
        try:
            program = torch.export.export(model, arguments, keywords, strict=False)
            program = program.run_decompositions(get_decompositions(_RECURRENT))
        except Exception as error:
            raise ExportError(
                f"torch.export cannot take the model {type(model).__name__}: {error}"
            ) from error
    return _from_program(program, named, _first_names(model))


def _first_names(model: nn.Module) -> dict[str, str]:
    """For every name of a parameter the one that `named_parameters` gives it: ties have several."""
    first = {parameter: name for name, parameter in model.named_parameters()}
    every = model.named_parameters(remove_duplicate=False)
    return {name: first[parameter] for name, parameter in every}


def _from_program(
    program: torch.export.ExportedProgram, named: dict[str, Tensor], first_names: Mapping[str, str]
) -> CapturedModel:
    tensors = {**program.state_dict, **program.constants}
    placeholders: list[str] = []
    parameters: dict[str, Tensor] = {}
    constants: dict[str, Tensor] = {}
    user_inputs = iter(named)
    for spec in program.graph_signature.input_specs:
        if spec.kind == InputKind.USER_INPUT:
            placeholders.append(next(user_inputs))
            continue
        target = str(spec.target)
        name, value = first_names.get(target, target), tensors[target].detach()
        trainable = spec.kind == InputKind.PARAMETER and value.is_floating_point()
        (parameters if trainable else constants)[name] = value
        placeholders.append(name)
    _check_float32({**parameters, **constants})
    graph = _user_outputs_only(program)
    folded = fold_batch_norm(graph, placeholders, parameters, constants)
    assert program.call_spec.out_spec is not None
    return CapturedModel(
        graph, tuple(placeholders), parameters, constants, named, program.call_spec.out_spec, folded
    )


def _user_outputs_only(program: torch.export.ExportedProgram) -> fx.GraphModule:
    """The program's graph, without the updated buffers that export returns first."""
    graph: fx.GraphModule = program.graph_module
    (output,) = [node for node in graph.graph.nodes if node.op == "output"]
    kept = [
        value
        for value, spec in zip(output.args[0], program.graph_signature.output_specs, strict=True)
        if spec.kind == OutputKind.USER_OUTPUT
    ]
    output.args = (tuple(kept),)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _as_call(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs), {}
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    raise ExportError(
        f"the sample inputs are a {type(inputs).__name__}: expected a tensor, a tuple of tensors "
        "(positional arguments) or a dict of tensors (keyword arguments)"
    )


def _name_inputs(
    model: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> dict[str, Tensor]:
    """Flat inputs in export's order, named after the parameters of the model's `forward`."""
    try:
        signature = inspect.signature(model.forward)
        bound = signature.bind(*arguments, **keywords)
    except TypeError as error:
        raise ExportError(
            f"the sample inputs do not fit {type(model).__name__}.forward: {error}"
        ) from error
    by_keyword = {
        *keywords,
        *(p.name for p in signature.parameters.values() if p.kind == p.VAR_KEYWORD),
    }
    positional = [(n, value) for n, value in bound.arguments.items() if n not in by_keyword]
    tree = [*positional, *keywords.items()]
    named: dict[str, Tensor] = {}
    for name, value in tree:
        for path, leaf in pytree.tree_flatten_with_path(value)[0]:
            full = ".".join([name, *[str(getattr(k, "key", getattr(k, "idx", k))) for k in path]])
            if not isinstance(leaf, Tensor):
                raise ExportError(
                    f"the sample input {full} is a {type(leaf).__name__}: expected a tensor; bind "
                    "other arguments inside the factory, for example in a small wrapper module"
                )
            named[full] = leaf
    sizes = {name: tuple(value.shape) for name, value in named.items()}
    if not named or len({shape[:1] for shape in sizes.values()}) != 1 or () in sizes.values():
        raise ExportError(
            f"the sample inputs need one common first (batch) dimension: found {sizes}"
        )
    return named


def _check_float32(tensors: Mapping[str, Tensor]) -> None:
    other = {n: t.dtype for n, t in tensors.items() if t.is_floating_point()}
    wrong = [f"{n} ({d})" for n, d in other.items() if d != torch.float32]
    if wrong:
        raise ExportError(
            f"{len(wrong)} tensors are not float32, for example {', '.join(wrong[:3])}: call "
            "model.float() in the factory"
        )


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block, each module's own mode after it."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the deprecation warnings that torch raises about its own internals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield
