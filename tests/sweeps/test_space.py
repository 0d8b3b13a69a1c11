"""The search space: what Hydra's grammar means as an axis, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from lab.errors import BadInput
from lab.sweeps.configs import composing
from lab.sweeps.space import Interval, Options, Space, parse_space


def only_axis(text: Any, key: str = "steps") -> Any:
    with composing() as loader:
        return parse_space({key: text}, {}, loader).axes[0]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("choice(1,2.5,abc)", (1, 2.5, "abc")),
        ("null,1", (None, 1)),
        ("choice(true,false)", (True, False)),
        ("0,0.1,0.2", (0, 0.1, 0.2)),
        ("range(1,4)", (1, 2, 3)),
        ("range(0,1,0.25)", (0.0, 0.25, 0.5, 0.75)),
        ("choice(3,1,3,1)", (3, 1)),
        ("7", (7,)),
        (7, (7,)),
        ("choice('a b','c,d')", ("a b", "c,d")),
    ],
)
def test_finite_values(text: Any, labels: tuple[Any, ...]) -> None:
    assert only_axis(text).labels == labels


def test_overrides_are_read_back_as_the_same_value() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    axis = only_axis("choice([1,2],[3],'a b','1',1e-6,null_,'x=1')")
    parser = OverridesParser.create()
    values = [parser.parse_override(axis.overrides(label)[0]).value() for label in axis.labels]
    assert values == [[1, 2], [3], "a b", "1", 1e-6, "null_", "x=1"]
    assert [type(value) for value in values][3] is str


def test_glob_lists_the_options_of_a_group() -> None:
    assert {"adamw", "sgd"} <= set(only_axis("glob(*)", "optimizer").labels)
    assert only_axis("glob(sg*)", "optimizer").labels == ("sgd",)


def test_interval_log_and_whole_numbers() -> None:
    axis = only_axis("tag(log,interval(1e-6,1e-2))")
    assert axis == Interval("steps", 1e-6, 1e-2, whole=False, log=True)
    assert axis.at(0.5) == pytest.approx(1e-4)
    whole = only_axis("int(interval(1,4))")
    shares = (np.arange(4000) + 0.5) / 4000
    counts = np.bincount([whole.at(share) for share in shares], minlength=5)
    assert counts.tolist() == [0, 1000, 1000, 1000, 1000]  # both ends as likely as the rest
    log_whole = only_axis("tag(log,int(interval(1,100)))")
    drawn = [log_whole.at(share) for share in shares]
    assert min(drawn) == 1 and max(drawn) == 100
    assert np.mean(np.array(drawn) <= 10) == pytest.approx(math.log(11) / math.log(101), abs=0.01)


def test_every_option_has_the_same_share() -> None:
    axis = only_axis("choice(a,b,c)")
    drawn = [axis.at(share) for share in (np.arange(300) + 0.5) / 300]
    assert [drawn.count(label) for label in "abc"] == [100, 100, 100]
    assert axis.at(np.nextafter(1.0, 0.0)) == "c"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"steps": "interval(3,1)"}, "sweep.space.steps: low 3 is above high 1"),
        ({"steps": "choice()"}, "sweep.space.steps: cannot read"),
        ({"steps": "range(3,1)"}, "sweep.space.steps: range(3,1) has no values"),
        ({"optimizer": "glob(zz*)"}, "sweep.space.optimizer: glob(zz*) matches nothing"),
        ({"steps": "tag(log,interval(0,1))"}, "has to lie above 0"),
        ({"steps": "tag(logg,interval(1,2))"}, "unknown tag logg"),
        ({"steps": "shuffle(range(3))"}, "shuffle has no place"),
        ({"steps": "choice("}, "sweep.space.steps: cannot read"),
        ({"steps": [1, 2]}, "expected a text such as choice"),
        ({"steps": "choice(1,true)"}, "mixes true or false with numbers"),
        ({"+steps": "choice(1,2)"}, "give the plain key"),
        ({}, "sweep.space: empty"),
    ],
)
def test_refusals_name_the_key(space: dict[str, Any], message: str) -> None:
    with composing() as loader, pytest.raises(BadInput) as caught:
        parse_space(space, {}, loader)
    assert message in str(caught.value)


@pytest.mark.parametrize("options", [{}, [1], {"small": "objective.prompts=4"}, {"small": [4]}])
def test_linked_overrides_of_a_wrong_form(options: Any) -> None:
    with pytest.raises(BadInput, match="sweep.groups.cell"):
        parse_space({"steps": "1,2"}, {"cell": options})


def test_a_grid_visits_every_combination_once_last_axis_fastest() -> None:
    space = parse_space({"a": "0,1", "b": "range(3)"}, {"c": {"x": ["d=1"], "y": []}})
    points = [tuple(space.grid_point(index).values()) for index in range(12)]
    assert space.size == 12
    assert points == [(a, b, c) for a in (0, 1) for b in (0, 1, 2) for c in "xy"]
    assert space.overrides(space.grid_point(2)) == ["a=0", "b=1", "d=1"]


def test_size_of_a_continuum_is_none() -> None:
    assert Space((Options("a", (1,), (("a=1",),)), Interval("b", 0.0, 1.0, False, False))).size is None


def test_optuna_knows_the_same_values() -> None:
    space = parse_space(
        {"a": "choice(x,y)", "b": "range(2,11,4)", "c": "range(0.1,0.5,0.1)", "d": "int(interval(1,9))"}, {}
    )
    distributions = space.distributions()
    for index, axis in enumerate(space.axes):
        if axis.labels is not None:
            for label in axis.labels:
                assert distributions[axis.key]._contains(distributions[axis.key].to_internal_repr(label)), (
                    index
                )
    assert distributions["b"].high == 10 and distributions["b"].step == 4
    assert space.axes[2].overrides(0.30000000000000004) == ("c=0.3",)
