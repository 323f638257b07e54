"""Dotted names of modules and parameters, such as `encoder.layer.5.attention`."""

from __future__ import annotations


def parent(name: str) -> str:
    """`encoder.layer` of `encoder.layer.5`, "" of `encoder`."""
    return name.rpartition(".")[0]


def shared_depth(one: str, other: str) -> int:
    """How many leading parts two names have in common."""
    depth = 0
    for part, counterpart in zip(one.split("."), other.split("."), strict=False):
        if part != counterpart:
            break
        depth += 1
    return depth
