"""Accounts plans: what they may say, what is wrong with wrong ones, and that the reference names every step."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge.errors import ConfigError
from bridge.simulator import read_accounts
from bridge.simulator.accounts.plan import open_account, parse_accounts
from bridge.simulator.accounts.script import STEPS
from bridge.simulator.faults import FAULTS
from tests.simulator.accounts.stage import NOW, Cast

PAGE = (Path(__file__).parents[3] / "docs/reference/simulator.md").read_text(encoding="utf-8")


def test_the_reference_is_whole() -> None:
    """Its example is a plan, and its tables name every step and every fault."""
    (example,) = [
        block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "accounts:" in block
    ]
    plan = parse_accounts(yaml.safe_load(example))
    assert ([a.name for a in plan.accounts], [s.at for s in plan.script]) == (["main"], [2.0, 5.0])
    rows = [
        cell
        for row in re.findall(r"^\| (`[^|]*`) \|", PAGE, re.MULTILINE)
        for cell in re.findall(r"`([^`]+)`", row)
    ]
    assert set(STEPS) <= set(rows)
    assert set(FAULTS) <= set(rows)


WRONG: list[tuple[Any, str]] = [
    ([], "plan: must be a mapping, found list"),
    ({"acounts": []}, "plan.acounts: unknown key; did you mean 'accounts'?"),
    ({"accounts": [{"keys": []}]}, "plan.accounts[0].name: is needed"),
    ({"accounts": [{"name": "a", "spot": {"BTC": "lots"}}]}, "plan.accounts[0].spot.BTC: must be a number"),
    ({"accounts": [{"name": "a", "fills": "scrip"}]}, "did you mean 'script'?"),
    ({"script": [{"do": "place", "at": -1}]}, "plan.script[0].at: must be seconds from 0"),
]


@pytest.mark.parametrize(("plan", "message"), WRONG)
def test_wrong_plans_name_the_culprit(plan: Any, message: str) -> None:
    """An error names the entry, the key and the mend."""
    with pytest.raises(ConfigError) as caught:
        parse_accounts(plan)
    assert message in str(caught.value)


def test_secrets_come_from_files_and_stay_out_of_errors(tmp_path: Path) -> None:
    """A secret may stand in a file beside the plan; a plan that cannot be read does not show what is in it."""
    (tmp_path / "main.secret").write_text("from-a-file\n", encoding="utf-8")
    path = tmp_path / "accounts.yaml"
    path.write_text(
        "accounts: [{name: main, keys: [{key: simulated-reader-key, secret_file: main.secret}]}]",
        encoding="utf-8",
    )
    plan = read_accounts(path)
    cast = Cast()
    cast.registry.accounts.clear()
    account, _ = open_account(cast.registry, plan.accounts[0], NOW, plan.folder)
    assert account.keys["key-0"].secret == b"from-a-file"
    path.write_text("accounts: [{secret: hush-hush: hush-hush", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_accounts(path)
    assert "hush-hush" not in str(caught.value)
