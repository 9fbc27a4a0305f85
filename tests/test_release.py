"""The package, the chart, the image they name and the changelog go out together, under one version."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import bridge

ROOT = Path(__file__).parent.parent
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


def test_the_import_package_says_the_version_of_the_distribution() -> None:
    """``bridge.__version__`` is the version in pyproject.toml, or says that nothing is installed."""
    assert bridge.__version__ in {VERSION, "0+checkout"}


@pytest.mark.parametrize("key", ["version", "appVersion"])
def test_the_chart_has_the_version_of_the_package(key: str) -> None:
    """The chart's own version and that of the image it runs are the package's."""
    chart = yaml.safe_load((ROOT / "helm" / "Chart.yaml").read_text("utf-8"))
    assert chart[key] == VERSION


def test_the_changelog_tells_of_this_version_first() -> None:
    """The newest entry of the changelog, what is not released yet aside, is of the package's version."""
    entries = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert next(entry for entry in entries if entry != "Unreleased") == VERSION
