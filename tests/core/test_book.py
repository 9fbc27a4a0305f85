"""One order book: levels, what is wrong with it, how far it is known, and its encoding."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.book import Book, Level, read_answer, shown
from bridge.core.decimals import ONE
from bridge.core.levels import read_levels
from bridge.errors import UnexpectedMessage

Rows = list[tuple[str, str]]
BIDS: Rows = [("10.0", "1"), ("9.5", "2"), ("9.0", "3")]
ASKS: Rows = [("10.5", "4"), ("11", "5"), ("11.5", "6")]
LEVELS = parse_schema(
    {
        "type": "record", "name": "Sides", "fields": [
            {"name": side, "type": {"type": "array", "items": {
                "type": "record", "name": f"Level_{side}", "fields": [
                    {"name": name, "type": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 18}}
                    for name in ("price", "amount")
                ],
            }}} for side in ("bids", "asks")
        ],
    }
)  # fmt: skip


def book(bids: Rows = BIDS, asks: Rows = ASKS, limit: int = 1000) -> Book:
    """Return a book."""
    return Book(flat(bids), flat(asks), limit)


def flat(rows: Rows) -> list[int]:
    """Return rows as a book takes them."""
    return read_levels(json.dumps(rows, separators=(",", ":")).encode())


def read(of: Book) -> tuple[Rows, Rows]:
    """Return the encoded levels, read by fastavro."""
    rest = io.BytesIO(of.encoded())
    record: Any = schemaless_reader(rest, LEVELS)
    assert not rest.read()
    bids, asks = (
        [(f"{r['price']:f}", f"{r['amount']:f}") for r in record[side]] for side in ("bids", "asks")
    )
    return bids, asks


def numbers(rows: Rows) -> list[tuple[Decimal, Decimal]]:
    """Return rows as numbers."""
    return [(Decimal(price), Decimal(amount)) for price, amount in rows]


def test_levels_are_best_first() -> None:
    """Whatever the order they came in."""
    made = book(BIDS[::-1], [ASKS[1], ASKS[0], ASKS[2]])
    assert made.top(2) == (
        [Level(10 * ONE, ONE), Level(19 * ONE // 2, 2 * ONE)],
        [Level(21 * ONE // 2, 4 * ONE), Level(11 * ONE, 5 * ONE)],
    )
    assert (made.best_bid, made.best_ask) == (10 * ONE, 21 * ONE // 2)
    bids, asks = read(made)
    assert (numbers(bids), numbers(asks)) == (numbers(BIDS), numbers(ASKS))


def test_changes_are_absolute_and_zero_removes() -> None:
    """A level is set, replaced, removed; removing an unknown one is normal; the text of a price does not matter."""
    made = book()
    wrong = made.apply(
        flat([("10.00", "7"), ("9.500", "0.000"), ("1", "0"), ("9.75", "8")]),
        flat([("10.50", "0"), ("10.75", "9")]),
    )
    assert wrong is None
    bids, asks = read(made)
    assert numbers(bids) == numbers([("10", "7"), ("9.75", "8"), ("9", "3")])
    assert numbers(asks) == numbers([("10.75", "9"), ("11", "5"), ("11.5", "6")])


def test_empty_book_has_no_best() -> None:
    """An instrument without orders has a book all the same."""
    made = book([], [])
    assert (made.best_bid, made.best_ask, made.fault(), made.encoded()) == (None, None, None, b"\x00\x00")
    assert made.apply(flat([("1", "1")]), []) is None
    assert made.top(5) == ([Level(ONE, ONE)], [])


@pytest.mark.parametrize(
    ("bids", "asks", "wrong"),
    [
        ([("10.5", "1")], [], "locked: bid 10.5, ask 10.5"),
        ([("10.6", "1")], [], "crossed: bid 10.6, ask 10.5"),
        ([], [("9.9", "1")], "crossed: bid 10, ask 9.9"),
        ([("10.6", "1")], [("10.5", "0")], None),
        ([(price, "0") for price, _ in BIDS], [], "no bids are left"),
        ([], [(price, "0") for price, _ in ASKS], "no asks are left"),
    ],
)
def test_a_whole_change_is_judged(bids: Rows, asks: Rows, wrong: str | None) -> None:
    """Crossed within a change is nothing; after it, it is; so is a side that loses its last level."""
    assert book().apply(flat(bids), flat(asks)) == wrong


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (("10", "-1"), "-1 at 10"),
        (("-10.50", "1"), "1 at -10.5"),
        (("0", "1"), "1 at 0"),
        (("ten", "1"), "'ten' is not a decimal number"),
        (("10", "1e30"), "does not fit"),
        (("0." + "0" * 18 + "1", "1"), "more than 18 decimals"),
    ],
)
def test_malformed_levels_are_refused(row: tuple[str, str], told: str) -> None:
    """In a change as in a snapshot."""
    with pytest.raises(UnexpectedMessage, match=told):
        book().apply(flat([row]), [])
    with pytest.raises(UnexpectedMessage, match=told):
        book([row])


@pytest.mark.parametrize(
    "rows", [[("10", "0")], [("10", "1"), ("10.0", "1")], [("1" * 21, "1")], [("10", "1" * 21)]]
)
def test_snapshots_have_each_level_once(rows: Rows) -> None:
    """A quantity of zero, a price twice, or a number that Avro's decimal can't hold, is no snapshot."""
    with pytest.raises(UnexpectedMessage, match="in a snapshot"):
        book(rows)


def test_best_beyond_a_cut_off_snapshot_proves_nothing() -> None:
    """Where the snapshot ended at its limit, levels beyond its last one are not known."""
    made = book(limit=3)
    assert made.apply(flat([("8", "1")]), []) is None
    assert made.apply(flat([("10", "0"), ("9.5", "0")]), []) is None
    assert made.apply(flat([("9", "0")]), []) == "the best bid is beyond the depth of the snapshot"
    made = book(limit=3)
    rows = [(price, "0") for price, _ in ASKS]
    assert made.apply([], flat([("12", "1"), *rows])) == "the best ask is beyond the depth of the snapshot"
    assert book(limit=4).apply(flat([("8", "1"), *[(price, "0") for price, _ in BIDS]]), []) is None


def test_shallow_books_ask_for_more() -> None:
    """When less than a quarter of the known range is left on a side, or far too much is beyond it."""
    rows = [(str(100 - n), "1") for n in range(9)]
    made = book(rows, [("101", "1")], limit=9)
    assert made.shallow() is None
    assert made.apply(flat([(str(100 - n), "0") for n in range(6)]), []) is None
    assert made.shallow() is None
    assert made.apply(flat([("94", "0")]), []) is None
    assert made.shallow() == "bids come near the depth of the snapshot"
    made = book([("1", "1")], [(str(101 + n), "1") for n in range(9)], limit=9)
    assert made.apply([], flat([(str(101 + n), "0") for n in range(7)])) is None
    assert made.shallow() == "asks come near the depth of the snapshot"
    made = book()
    assert made.apply(flat([(f"0.{n:06}", "1") for n in range(1, 11_010)]), []) is None
    assert made.shallow() == "many levels are beyond the depth of the snapshot"


def test_books_of_one_moment_are_compared_where_both_are_known() -> None:
    """Beyond the edge of either nothing can be said."""
    assert book().differs(book()) is None
    assert book(limit=3).differs(book([*BIDS, ("8", "1")], [*ASKS, ("12", "1")])) is None
    assert book().differs(book([*BIDS, ("8", "1")])) == "bid 8"
    assert book().differs(book(BIDS, [("10.5", "4"), ("11", "7"), ("11.5", "6")])) == "ask 11"
    assert book(limit=3).differs(book([("10.0", "1"), ("9.0", "3")])) == "bid 9.5"


_prices = st.integers(1, 60).map(lambda n: f"{n / 4:.2f}")
_changes = st.lists(st.tuples(_prices, st.sampled_from(["0", "0.000", "1", "2.50", "3"])), max_size=12)


@given(st.lists(st.tuples(_changes, _changes), max_size=12))
def test_sides_are_what_a_plain_dict_says(steps: list[tuple[Rows, Rows]]) -> None:
    """However levels come and go, order, amounts and best prices are those of the simplest book there is."""
    made = Book([], [])
    plain: tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]] = ({}, {})
    for bids, asks in steps:
        made.apply(flat(bids), flat(asks))
        for side, rows in zip(plain, (bids, asks), strict=True):
            for price, amount in numbers(rows):
                side[price] = amount
        found = read(made)
        wanted = [{p: a for p, a in side.items() if a} for side in plain]
        assert numbers(found[0]) == sorted(wanted[0].items(), reverse=True)
        assert numbers(found[1]) == sorted(wanted[1].items())
        crossed = bool(wanted[0] and wanted[1]) and max(wanted[0]) >= min(wanted[1])
        assert (made.fault() is not None) == crossed
        for price, amount in wanted[0].items():
            assert made.bids.levels[int(price * ONE)] == int(amount * ONE)


def test_the_exchanges_answer() -> None:
    """Futures have more keys; what is read is the same."""
    answer = b'{"lastUpdateId":7,"E":1,"T":1,"symbol":"X","bids":[["1","2"]],"asks":[]}'
    made, last = read_answer(answer, 1000)
    assert (last, made.top(5)) == (7, ([Level(ONE, 2 * ONE)], []))


@pytest.mark.parametrize(
    ("number", "text"), [(ONE, "1"), (ONE // 4, "0.25"), (10 * ONE + 1, "10." + "0" * 17 + "1")]
)
def test_numbers_are_shown_as_people_write_them(number: int, text: str) -> None:
    """Reasons of a resync are read by people."""
    assert shown(number) == text
