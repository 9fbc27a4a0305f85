"""The reference page of the configuration."""

from pathlib import Path

from bridge.config import Settings
from bridge.config_problems import keys
from bridge.config_reference import reference_page

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"


def test_the_page_is_current() -> None:
    """The page in the repository is what the models say now; make it anew with ``config reference``."""
    assert PAGE.read_text(encoding="utf-8") == reference_page()


def test_the_page_has_every_key() -> None:
    """No key is left out of the page."""
    page = reference_page()
    for key in keys(Settings):
        section, _, name = key.rpartition(".")
        heading = f"## `{section}`" if section else "## Top level"
        part = page.partition(f"{heading}\n")[2].partition("\n## ")[0]
        assert f"| `{name}` |" in part, key
