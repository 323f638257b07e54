"""The selections that people make by hand, to compare with: head, last blocks, biases, all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgetune.planning.module_names import parent, shared_depth

LAST_BLOCKS = (1, 2, 4)


def named_selections(parameters: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Names of parameters by what people call the selection; of equal ones only the first.

    parameters: in the model's order, at least one. A block is a numbered part, such as
    `encoder.layer.5` or `stages.3.layers.2`; the head is what comes after the last block, of that
    the outermost: `classifier`, but not `bert.pooler`. A model without numbered parts of several
    layers has its layers for blocks, and the last one for a head.
    """
    blocks = _numbered_blocks(parameters)
    head = _outermost(parameters[_end(parameters, blocks) :], blocks)
    if not head:
        *blocks, last = blocks or _layers(parameters)
        head = tuple(last)
    everything = tuple(parameters)
    found = {head: "head"}
    for count in LAST_BLOCKS:
        if len(blocks) >= count:
            chosen = tuple(parameters[parameters.index(blocks[-count][0]) :])
            found.setdefault(chosen, f"last {count} block{'s' if count > 1 else ''} and head")
    biases = tuple(name for name in parameters if _is_bias(name) or name in head)
    found.setdefault(biases, "biases and head")
    found.pop(everything, None)
    return {**{name: chosen for chosen, name in found.items()}, "everything": everything}


def _end(parameters: Sequence[str], blocks: Sequence[Sequence[str]]) -> int:
    """The place behind the last parameter that is in a block."""
    return max((parameters.index(name) + 1 for block in blocks for name in block), default=0)


def _outermost(after: Sequence[str], blocks: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Of the parameters `after` the blocks those that share the least of their path with them."""
    if not blocks:
        return ()
    shared = {name: shared_depth(name, blocks[-1][0]) for name in after}
    return tuple(name for name in after if shared[name] == min(shared.values()))


def _numbered_blocks(parameters: Sequence[str]) -> list[list[str]]:
    """Parameters by block, in the order of the model; parameters of no block are left out.

    A list of parts, such as `encoder.layer`, is one of blocks when most of its parts have several
    weights; with lists inside each other, the innermost such list counts.
    """
    weights: dict[str, int] = {}
    for name in parameters:
        for prefix in _numbered_prefixes(name):
            weights[prefix] = weights.get(prefix, 0) + (not _is_bias(name))
    parts: dict[str, list[bool]] = {}
    for prefix, count in weights.items():
        parts.setdefault(parent(prefix), []).append(count > 1)
    blocks: dict[str, list[str]] = {}
    for name in parameters:
        for prefix in reversed(_numbered_prefixes(name)):
            several = parts[parent(prefix)]
            if 2 * sum(several) > len(several):
                blocks.setdefault(prefix, []).append(name)
                break
    return list(blocks.values())


def _numbered_prefixes(name: str) -> list[str]:
    """`stages.3` and `stages.3.layers.2` of `stages.3.layers.2.conv.weight`."""
    parts = name.split(".")[:-1]
    return [".".join(parts[: end + 1]) for end, part in enumerate(parts) if part.isdigit()]


def _layers(parameters: Sequence[str]) -> list[list[str]]:
    """Each module with weights of its own, and biases of folded normalisations behind it."""
    layers: list[list[str]] = []
    for name in parameters:
        new = not layers or (not _is_bias(name) and parent(name) != parent(layers[-1][0]))
        layers += [[name]] if new else []
        layers[-1] += [] if new else [name]
    return layers


def _is_bias(name: str) -> bool:
    return "bias" in name.rpartition(".")[2]
