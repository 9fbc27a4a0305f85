"""The fault plan: what it may say and when its faults are due."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bridge.errors import ConfigError
from bridge.simulator.exchange import Emission
from bridge.simulator.faults import ALL, FAULTS, Fault, Planned, Schedule, from_mapping, parse_plan, read_plan
from bridge.simulator.interference import Interference

if TYPE_CHECKING:
    from pathlib import Path

WRONG = [
    (3, "faults: must be a list of faults, found int"),
    ([3], "faults[0]: must be a mapping such as {at: 5, fault: drop}, found 3"),
    ([{"at": 1}], "faults[0].fault: None is not known; one of drop, half-open"),
    ([{"fault": "drop"}, {"fault": "dorp"}], "faults[1].fault: 'dorp' is not known; did you mean 'drop'?"),
    ([{"fault": "drop", "market": "usd"}], "faults[0].market: 'usd' is not known; did you mean 'usdm'?"),
    ([{"fault": "drop", "at": -1}], "faults[0].at: must be seconds from 0, found -1"),
    ([{"fault": "drop", "at": "soon"}], "faults[0].at: must be seconds from 0, found 'soon'"),
    ([{"fault": "drop", "at": float("nan")}], "faults[0].at: must be seconds from 0, found nan"),
    ([{"fault": "drop", "every": 0}], "faults[0].every: must be greater than 0"),
    ([{"fault": "drop", "at": 1, "every": 1}], "faults[0]: has both 'at' and 'every'; keep one"),
    ([{"fault": "drop", "count": 0}], "faults[0].count: must be a whole number from 1, or 'all', found 0"),
    (
        [{"fault": "drop", "count": True}],
        "faults[0].count: must be a whole number from 1, or 'all', found True",
    ),
    ([{"fault": "drop", "seconds": 3}], "faults[0].seconds: unknown key; drop takes at, count, every"),
    ([{"fault": "drop", "strem": "x"}], "faults[0].strem: unknown key; did you mean 'stream'?"),
    ([{"fault": "drop", "stream": 5}], "faults[0].stream: must be a pattern such as '*@aggTrade', found 5"),
    ([{"fault": "ban", "status": 500}], "faults[0].status: 500 is not known; one of 418, 429"),
    ([{"fault": "garbage", "kind": "binry"}], "faults[0].kind: 'binry' is not known; did you mean 'binary'?"),
]


@pytest.mark.parametrize(("plan", "message"), WRONG)
def test_a_wrong_plan_is_one_sentence(plan: object, message: str) -> None:
    """A wrong entry is refused with its place, its key, what was found and what would be right."""
    with pytest.raises(ConfigError) as caught:
        parse_plan(plan)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_needs_no_more_than_its_name(name: str) -> None:
    """Every fault has defaults for all it takes, and shows them under the names it takes them by."""
    fault = from_mapping({"fault": name})
    again = {key: value for key, value in fault.shown().items() if value is not None}
    assert from_mapping(again) == fault


def test_a_plan_file_is_yaml_or_json(tmp_path: Path) -> None:
    """A YAML list and its JSON twin are the same plan."""
    yaml, json = tmp_path / "a.yaml", tmp_path / "a.json"
    yaml.write_text("- {every: 5, fault: skip, stream: '*@aggTrade', count: all, until: 30}\n")
    json.write_text('[{"every": 5, "fault": "skip", "stream": "*@aggTrade", "count": "all", "until": 30}]')
    fault = Fault(fault="skip", stream="*@aggTrade", count=ALL)
    assert read_plan(yaml) == read_plan(json) == (Planned(fault=fault, every=5.0, until=30.0),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {fault: drop}", "[0]: needs 'at' or 'every', seconds from the start"),
        ("- {fault: drop", "while parsing a flow mapping"),
    ],
)
def test_a_plan_file_has_times(tmp_path: Path, text: str, message: str) -> None:
    """In a file every fault has a time, and a file that is no YAML says so."""
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"plan\.yaml") as caught:
        read_plan(path)
    assert message in str(caught.value)


def test_a_missing_plan_file_says_so(tmp_path: Path) -> None:
    """A file that is not there is one message with its name."""
    with pytest.raises(ConfigError, match="No such file"):
        read_plan(tmp_path / "none.yaml")


def _times(seed: int) -> list[tuple[float, str]]:
    plan = parse_plan([{"every": 5, "fault": "drop", "until": 100}, {"at": 7, "fault": "ban"}])
    return [(at, fault.fault) for at, fault in Schedule(plan, seed).take(1000)]


def test_the_same_seed_gives_the_same_times() -> None:
    """A seeded plan repeats to the microsecond; another seed moves its jitter, not its fixed times."""
    assert _times(1) == _times(1) != _times(2)
    assert (7.0, "ban") in _times(1)
    assert (7.0, "ban") in _times(2)


def test_every_means_on_average() -> None:
    """Intervals differ by up to a quarter, faults come in order and end with ``until``."""
    drops = [at for at, name in _times(3) if name == "drop"]
    intervals = [after - before for before, after in zip([0.0, *drops], drops, strict=False)]
    assert all(3.75 <= interval <= 6.25 for interval in intervals)
    assert 93 < drops[-1] <= 100
    assert _times(3) == sorted(_times(3))


def test_faults_are_taken_once() -> None:
    """What was due is handed out once; what is planned later counts from then."""
    schedule = Schedule(parse_plan([{"at": 2, "fault": "drop"}]))
    assert schedule.take(1.9) == []
    schedule.add(parse_plan([{"at": 1, "fault": "ban"}, {"fault": "rotate"}]), 1.9)
    assert [fault.fault for _, fault in schedule.take(2.5)] == ["rotate", "drop"]
    assert [fault.fault for _, fault in schedule.take(3.0)] == ["ban"]


def _event(number: int, stream: str = "a@trade") -> Emission:
    return Emission("spot", stream, b"%d" % number, number, number, 0)


def _passed(interference: Interference, *events: Emission, now: float = 0.0) -> list[int | None]:
    return [out.first_id for n, e in enumerate(events) for out in interference.apply(e, n, now)]


@pytest.mark.parametrize(
    ("fault", "out", "touched"),
    [
        ({"fault": "duplicate", "count": 2}, [0, 0, 1, 1, 2, 3], [0, 1]),
        ({"fault": "skip", "count": 3}, [3], [0, 1, 2]),
        ({"fault": "reorder", "count": 2}, [1, 0, 3, 2], [0, 2]),
        ({"fault": "mute", "count": "all"}, [], [0, 1, 2, 3]),
        ({"fault": "skip", "market": "usdm"}, [0, 1, 2, 3], []),
        ({"fault": "skip", "stream": "*@depth*"}, [0, 1, 2, 3], []),
    ],
)
def test_events_are_touched_as_their_fault_says(
    fault: dict[str, object], out: list[int], touched: list[int]
) -> None:
    """Duplicate, skip, reorder and mute touch so many matching events, tell which, and touch no other."""
    told: list[int] = []
    interference = Interference(lambda _fault, number: told.append(number))
    interference.arm(from_mapping(fault), now=0.0)
    assert _passed(interference, *map(_event, range(4))) == out
    assert told == touched


def test_reorder_swaps_neighbours_of_one_stream() -> None:
    """The event that is held comes after the next one of its own stream; other streams pass by."""
    interference = Interference(lambda _fault, _number: None)
    interference.arm(from_mapping({"fault": "reorder"}), now=0.0)
    assert _passed(interference, _event(0), _event(1, "b@trade"), _event(2), _event(3)) == [1, 2, 0, 3]


def test_a_held_event_does_not_wait_for_ever() -> None:
    """An event whose successor does not come is sent after the fault's seconds."""
    interference = Interference(lambda _fault, _number: None)
    interference.arm(from_mapping({"fault": "reorder", "seconds": 2}), now=0.0)
    assert _passed(interference, _event(0)) == []
    assert interference.overdue(1.9) == []
    assert interference.overdue(2.0) == [_event(0)]
    assert not interference.active


def test_a_mute_ends() -> None:
    """A muted stream speaks again after the fault's seconds; its neighbours never fell silent."""
    interference = Interference(lambda _fault, _number: None)
    interference.arm(from_mapping({"fault": "mute", "seconds": 2}), now=0.0, only=("spot", "a@trade"))
    assert _passed(interference, _event(0), _event(1, "b@trade")) == [1]
    assert _passed(interference, _event(2), now=2.0) == [2]
