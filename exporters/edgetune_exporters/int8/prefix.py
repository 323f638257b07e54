"""The frozen part of a bundle's graphs in 8 bits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx

from edgetune.nouns.bundle_names import FEATURES, PREDICT
from edgetune_exporters.int8.ranges import Feeds, observed_ranges
from edgetune_exporters.int8.rewrite import Int8Rewrite


def with_int8_prefix(
    graphs: Mapping[str, onnx.ModelProto], values: Feeds, batches: Sequence[Feeds]
) -> dict[str, onnx.ModelProto]:
    """`graphs` with everything that depends on no trainable value in 8 bits.

    values: the trainable values by name. batches: calibration inputs by name, each a micro-batch.
    That is all of the prefix graph, and the same operations in the inference graph, so that what
    is learnt behind rounded features is used behind rounded features.
    """
    changed = dict(graphs)
    if FEATURES in graphs:
        changed[FEATURES] = _rewritten(graphs[FEATURES], None, batches)
        frozen = _independent_of(graphs[PREDICT], values)
        changed[PREDICT] = _rewritten(graphs[PREDICT], frozen, [{**values, **b} for b in batches])
    return changed


def _rewritten(
    model: onnx.ModelProto, frozen: Collection[str] | None, batches: Sequence[Feeds]
) -> onnx.ModelProto:
    rewrite = Int8Rewrite(model, frozen)
    return rewrite.model(observed_ranges(model, rewrite.rounded, batches))


def _independent_of(model: onnx.ModelProto, values: Collection[str]) -> set[str]:
    """Names of the nodes that depend on none of the inputs `values`."""
    trained = set(values)
    found: set[str] = set()
    for node in model.graph.node:
        if trained.isdisjoint(node.input):
            found.add(node.name)
        else:
            trained.update(node.output)
    return found
