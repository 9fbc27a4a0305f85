"""How commands lay out what they print."""

import pytest

from bridge.cli.output import cut, padded


@pytest.mark.parametrize("text", ["BTC/USDT", "币安人生/USDT", ""])
def test_columns_begin_at_the_same_place_whatever_the_script(text: str) -> None:
    """A sign that takes two columns of the terminal counts for two."""
    wide = sum(not sign.isascii() for sign in text)
    assert padded(text, 20) == text + " " * (20 - len(text) - wide)


def test_what_is_longer_than_its_column_stays_whole() -> None:
    """A long symbol shifts its line; it is not cut."""
    assert padded("BTC/USDT:USDT-261225", 10) == "BTC/USDT:USDT-261225"


@pytest.mark.parametrize(
    ("text", "columns", "left"),
    [("币安人生", 8, "币安人生"), ("币安人生", 7, "币安人"), ("abc", 2, "ab"), ("abc", 3, "abc")],
)
def test_a_line_is_cut_at_the_edge_of_the_terminal(text: str, columns: int, left: str) -> None:
    """A line that fills the terminal to the last column does not break."""
    assert cut(text, columns) == left
