from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from edgetune.nouns.manifest import Manifest
from edgetune.nouns.optimizer import Optimizer
from edgetune.nouns.plain import from_plain, to_plain
from tests.device.fake_session import make_manifest


@dataclass(frozen=True)
class Inner:
    name: str
    size: float = 1.0


@dataclass(frozen=True)
class Outer:
    count: int
    kind: Literal["a", "b"]
    inners: tuple[Inner, ...]
    table: Mapping[str, Inner]
    maybe: float | None = None
    anything: Mapping[str, Any] = field(default_factory=dict)


GOOD = {"count": 3, "kind": "a", "inners": [{"name": "x"}], "table": {"k": {"name": "y"}}}


def test_a_noun_survives_json() -> None:
    noun = Outer(3, "b", (Inner("x", 2.5),), {"k": Inner("y")}, 0.1, {"deep": [1, {"er": None}]})
    assert from_plain(Outer, json.loads(json.dumps(to_plain(noun)))) == noun


def test_a_manifest_survives_json() -> None:
    manifest = make_manifest(class_weights=(1.0, 2.0, 3.0))
    assert from_plain(Manifest, json.loads(json.dumps(to_plain(manifest)))) == manifest


def test_what_has_a_default_may_be_left_out() -> None:
    assert from_plain(Outer, GOOD) == Outer(3, "a", (Inner("x"),), {"k": Inner("y")})


def test_an_integer_is_a_float_but_not_the_other_way_round() -> None:
    assert from_plain(Inner, {"name": "x", "size": 2}).size == 2.0
    with pytest.raises(ValueError, match=r"Outer\.count is 3\.0, expected int"):
        from_plain(Outer, {**GOOD, "count": 3.0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"count": True}, r"Outer\.count is True, expected int", id="bool-is-no-int"),
        pytest.param({"count": None}, r"Outer\.count is None, expected int", id="null"),
        pytest.param({"kind": "c"}, r"Outer\.kind is 'c', expected one of 'a', 'b'", id="choice"),
        pytest.param({"maybe": True}, r"Outer\.maybe is True, expected float", id="bool-no-float"),
        pytest.param({"maybe": "1"}, r"Outer\.maybe is '1', expected float", id="text-no-float"),
        pytest.param({"inners": {}}, r"Outer\.inners is \{\}, expected a list", id="no-list"),
        pytest.param({"inners": [3]}, r"Outer\.inners\[0\] is 3, expected an obj", id="in-a-list"),
        pytest.param({"table": {"k": {}}}, r"Outer\.table\.k\.name is missing", id="missing"),
        pytest.param({"table": []}, r"Outer\.table is \[\], expected an object", id="no-object"),
        pytest.param({"more": 1}, r"Outer\.more is not known", id="unknown"),
    ],
)
def test_what_does_not_fit_is_named_by_its_path(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_plain(Outer, {**GOOD, **change})


def test_a_value_the_noun_itself_refuses_is_named_by_its_path_too() -> None:
    assert from_plain(Optimizer, {"kind": "sgd"}) == Optimizer("sgd")
    with pytest.raises(ValueError, match="Optimizer: unknown optimizer 'lion'"):
        from_plain(Optimizer, {"kind": "lion"})


def test_the_path_can_start_at_the_file() -> None:
    with pytest.raises(ValueError, match=r"manifest\.json\.count is 'x'"):
        from_plain(Outer, {**GOOD, "count": "x"}, where="manifest.json")
