"""What several writers left in several partitions, in one order."""

from __future__ import annotations

from bridge.replay.merge import WINDOW, Merge, Written

START = 1_795_305_600_000_000


def _written(writer: int, *times: int, place: str = "p", offset: int = 0) -> list[Written[str, str]]:
    """Return what a writer wrote at these times, at the offsets from ``offset`` on."""
    return [
        Written(place, at, writer, (START + time,), f"{writer}@{time}")
        for at, time in enumerate(times, offset)
    ]


def _due(merge: Merge[str, str], unfinished: list[str], held: tuple[str, ...] = ()) -> list[str]:
    return [written.item for written in merge.due(unfinished, held)]


def test_batches_of_two_writers_in_any_order_are_put_in_order() -> None:
    """Where a writer's batch comes behind another's that is younger, its records come first all the same."""
    merge: Merge[str, str] = Merge()
    merge.push("p", [*_written(1, 10, 20), *_written(2, 5, 15)])
    merge.push("q", _written(2, 16))
    assert _due(merge, []) == ["2@5", "1@10", "2@15", "2@16", "1@20"]


def test_a_writers_own_order_in_a_partition_stays() -> None:
    """A clock that stepped back changes nothing of the order in which one bridge received."""
    merge: Merge[str, str] = Merge()
    merge.push("p", _written(1, 10, 8, 12))
    assert _due(merge, []) == ["1@10", "1@8", "1@12"]


def test_nothing_is_due_before_every_partition_has_come_further() -> None:
    """What may still come from a partition that is not at its end is waited for, late batches included."""
    merge: Merge[str, str] = Merge()
    merge.push("p", _written(1, 10, WINDOW + 20))
    assert _due(merge, ["p", "q"]) == []
    merge.push("q", _written(1, WINDOW + 5))
    assert _due(merge, ["p", "q"]) == []
    merge.push("q", _written(1, WINDOW + 10))
    assert _due(merge, ["p", "q"]) == ["1@10"]
    merge.push("q", _written(2, 11))
    assert _due(merge, []) == ["2@11", f"1@{WINDOW + 5}", f"1@{WINDOW + 10}", f"1@{WINDOW + 20}"]


def test_a_partition_that_is_held_is_waited_for_as_far_as_it_is() -> None:
    """Too much waits of it: it gives no more until some is taken, so all of it must be able to go."""
    merge: Merge[str, str] = Merge()
    merge.push("p", _written(1, 10, 11, 12))
    merge.push("q", _written(1, 11, 13))
    assert _due(merge, ["p", "q"]) == []
    assert _due(merge, ["p"], ("p",)) == ["1@10", "1@11", "1@11", "1@12"]
    assert (merge.waiting("p"), merge.waiting("q")) == (0, 1)


def test_where_a_later_run_begins_is_known() -> None:
    """Before whatever is not derived yet, whoever wrote it; behind all that is, where nothing waits."""
    merge: Merge[str, str] = Merge()
    merge.push("p", [*_written(1, 30, offset=7), *_written(2, 10, 40, offset=8)])
    merge.push("q", _written(3, WINDOW + 10, place="q"))
    assert merge.behind("p") == 7
    assert _due(merge, ["q"]) == ["2@10"]
    assert (merge.behind("p"), merge.reached) == (7, {"p": 9})
    assert _due(merge, []) == ["1@30", "2@40", f"3@{WINDOW + 10}"]
    assert (merge.behind("p"), merge.behind("q"), merge.behind("r")) == (10, 1, 0)
    assert merge.reached == {"p": 10, "q": 1}
