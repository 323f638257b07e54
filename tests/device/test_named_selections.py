from __future__ import annotations

import pytest

from edgetune.planning.named_selections import named_selections


def layers(*modules: str) -> list[str]:
    return [f"{module}.{part}" for module in modules for part in ("weight", "bias")]


def folded(*pairs: str) -> list[str]:
    """Convolutions with the biases of the normalisations that were folded into them."""
    return [name for pair in pairs for name in (f"{pair}0.weight", f"{pair}1.bias")]


BERT = layers(
    "bert.embeddings.norm",
    *(f"bert.encoder.layer.{i}.{part}" for i in range(5) for part in ("attention", "output.dense")),
    "bert.pooler.dense",
    "classifier",
)
# The blocks are layers.N of the stages, and neither the stages nor the numbered convolutions.
RESNET = [
    *layers("net.embedder"),
    *(
        f"net.stages.{stage}.layers.{block}.layer.{conv}.{part}"
        for stage in range(2)
        for block in range(2)
        for conv in range(3)
        for part in ("convolution.weight", "normalization.bias")
    ),
    *layers("classifier.1"),
]
# Blocks with a squeeze-and-excitation, which has two weights of its own, and a last convolution.
MOBILENET = [
    *folded("features.0."),
    *(
        name
        for i in (1, 2, 3)
        for name in (
            *folded(f"features.{i}.block.0."),
            *layers(f"features.{i}.block.1.fc1", f"features.{i}.block.1.fc2"),
            *folded(f"features.{i}.block.2."),
        )
    ),
    *folded("features.4."),
    *layers("classifier.0", "classifier.3"),
]
PERCEPTRON = layers("fc1", "fc2", "head")
CONVOLUTIONS = [*folded("features.0.", "features.3.", "features.6."), *layers("head")]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        pytest.param(
            BERT,
            {
                "head": "classifier.weight",
                "last 1 block and head": "bert.encoder.layer.4.attention.weight",
                "last 2 blocks and head": "bert.encoder.layer.3.attention.weight",
                "last 4 blocks and head": "bert.encoder.layer.1.attention.weight",
                "everything": "bert.embeddings.norm.weight",
            },
            id="transformer",
        ),
        pytest.param(
            RESNET,
            {
                "head": "classifier.1.weight",
                "last 1 block and head": "net.stages.1.layers.1.layer.0.convolution.weight",
                "last 2 blocks and head": "net.stages.1.layers.0.layer.0.convolution.weight",
                "last 4 blocks and head": "net.stages.0.layers.0.layer.0.convolution.weight",
                "everything": "net.embedder.weight",
            },
            id="stages",
        ),
        pytest.param(
            MOBILENET,
            {
                "head": "classifier.0.weight",
                "last 1 block and head": "features.4.0.weight",
                "last 2 blocks and head": "features.3.block.0.0.weight",
                "last 4 blocks and head": "features.1.block.0.0.weight",
                "everything": "features.0.0.weight",
            },
            id="blocks-in-a-sequence",
        ),
        pytest.param(
            PERCEPTRON,
            {
                "head": "head.weight",
                "last 1 block and head": "fc2.weight",
                "everything": "fc1.weight",
            },
            id="layers",
        ),
        pytest.param(
            CONVOLUTIONS,
            {
                "head": "head.weight",
                "last 1 block and head": "features.6.0.weight",
                "last 2 blocks and head": "features.3.0.weight",
                "everything": "features.0.0.weight",
            },
            id="numbered-layers",
        ),
        pytest.param(layers("only"), {"everything": "only.weight"}, id="one-layer"),
        pytest.param(["scale"], {"everything": "scale"}, id="one-tensor"),
    ],
)
def test_what_comes_last_is_selected_from_its_first_parameter_on(
    parameters: list[str], expected: dict[str, str]
) -> None:
    found = dict(named_selections(parameters))
    found.pop("biases and head", None)
    assert {name: chosen[0] for name, chosen in found.items()} == expected
    for name, chosen in found.items():
        if name != "head":
            assert chosen == tuple(parameters[parameters.index(chosen[0]) :])


def test_the_head_is_what_lies_outside_the_encoder() -> None:
    assert named_selections(BERT)["head"] == ("classifier.weight", "classifier.bias")
    assert "bert.pooler.dense.weight" in named_selections(BERT)["last 1 block and head"]


def test_biases_are_those_of_every_layer_with_the_whole_head() -> None:
    assert named_selections(CONVOLUTIONS)["biases and head"] == (
        "features.0.1.bias",
        "features.3.1.bias",
        "features.6.1.bias",
        "head.weight",
        "head.bias",
    )
    recurrent = ["rnn.weight_ih_l0", "rnn.bias_ih_l0", "head.weight", "head.bias"]
    assert named_selections(recurrent)["biases and head"] == tuple(recurrent[1:])


def test_of_equal_selections_one_name_is_left() -> None:
    without_biases = ["fc1.weight", "fc2.weight", "head.weight"]
    assert list(named_selections(without_biases)) == ["head", "last 1 block and head", "everything"]
