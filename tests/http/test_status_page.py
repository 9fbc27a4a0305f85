"""The status page, as text: what it shows, and that it needs nothing from elsewhere."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from bridge.status_page import POLICY, duration, render, size
from tests.http.reports import status_report

VOID = {"meta", "link", "br", "img", "input"}
SECTIONS = ("Markets", "Topics", "Lifecycle, newest first")


class Outline(HTMLParser):
    """Checks that tags nest and collects what a reader sees."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text.append(data)


def outlined(page: str) -> Outline:
    """Return the page's outline; its tags nest."""
    outline = Outline()
    outline.feed(page)
    outline.close()
    assert outline.open == []
    return outline


def test_the_page_shows_the_report() -> None:
    """Everything the report says is on the page, readable without a script."""
    shown = " ".join(outlined(render(status_report())).text)
    for text in (
        "testnet", "bridge-0", "version 0.1.0", "up 1 d 2 h", "Ready", "3,121.4", "48,123,456", "308 of 310",
        "binance.testnet.unified.trade", "1,234,567", "12.3 ms", "p99 –", "1.0 MiB", "7 found",
        "connection.retrying", "reason='lost'", "312", "371 of 400", "29 wait about 13 s",
    ):  # fmt: skip
        assert text in shown, text


def test_a_bridge_without_books_says_nothing_of_them() -> None:
    """Where no depth is subscribed there is no figure of order books."""
    books = {"kept": 0, "synced": 0, "waiting": 0, "estimate_seconds": 0.0}
    assert "Order books" not in render(status_report() | {"books": books})
    assert "Order books" in render(status_report())


def test_a_bridge_that_is_not_ready_says_why() -> None:
    """The reason stands beside the state."""
    shown = " ".join(outlined(render(status_report() | {"ready": False, "reason": "no broker"})).text)
    assert "Not ready no broker" in " ".join(shown.split())


def test_a_bridge_that_has_just_started_has_a_page() -> None:
    """Without markets, topics and events each section says so in words."""
    report = status_report() | {"markets": [], "topics": [], "lifecycle": [], "request_weight": {}}
    report["latency_ms"] = {"p50": None, "p99": None}
    report["buffer"] = {"bytes": 0, "limit": 0}
    shown = " ".join(outlined(render(report)).text)
    for text in (
        "No market is subscribed to.",
        "Nothing has been published yet.",
        "Nothing has happened yet.",
    ):
        assert text in shown


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '"><img src=x>', "{{page}}", "&amp;"])
def test_values_cannot_become_markup(text: str) -> None:
    """Whatever a value holds is shown as text: a reason may quote what the exchange sent."""
    report = status_report() | {"instance": text, "version": text, "reason": text, "ready": False}
    report["markets"][0]["market"] = text
    report["topics"][0]["topic"] = text
    report["lifecycle"] = [{"at": text, "event": text, "text": text}]
    outline = outlined(render(report))
    plain = outlined(render(status_report()))
    assert [tag for tag, _ in outline.tags if tag in {"script", "img"}] == ["script"]
    assert "".join(outline.text).count(text) >= 6
    assert abs(len(outline.tags) - len(plain.tags)) <= 1  # the reason's own element


def test_the_page_loads_nothing_from_elsewhere() -> None:
    """No address of another host, no file beside the page, no inline style or handler."""
    page = render(status_report())
    assert not re.search(r"https?://|//[a-z]|@import|url\(", page.replace("// The server", ""))
    for tag, attributes in outlined(page).tags:
        assert not {name for name in attributes if name.startswith("on") or name == "style"}, tag
        assert "src" not in attributes


def test_the_policy_admits_the_pages_own_style_and_script_only() -> None:
    """The hashes of the policy are those of the page as it is served."""
    page = render(status_report())
    for tag in ("style", "script"):
        inside = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert len(inside) == 1
        digest = base64.b64encode(hashlib.sha256(inside[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in POLICY
    assert "unsafe" not in POLICY


def test_the_page_is_accessible() -> None:
    """It has a language, a title, one main heading, named sections, and headed rows and columns."""
    outline = outlined(render(status_report()))
    tags = [tag for tag, _ in outline.tags]
    assert dict(outline.tags)["html"]["lang"] == "en"
    assert (tags.count("h1"), tags.count("main"), tags.count("title")) == (1, 1, 1)
    named = [attributes["aria-label"] for tag, attributes in outline.tags if tag == "section"]
    assert named == list(SECTIONS)
    assert all("scope" in attributes for tag, attributes in outline.tags if tag == "th")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (7, "7 s"),
        (60, "1 min 0 s"),
        (307, "5 min 7 s"),
        (11_100, "3 h 5 min"),
        (183_600, "2 d 3 h"),
    ],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    """A duration is its two largest units."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (268_435_456, "256.0 MiB"), (3 << 40, "3.0 TiB")],
)
def test_sizes_are_for_people(count: int, text: str) -> None:
    """A size is in binary units, one decimal place."""
    assert size(count) == text
