"""The command line's frame: what is listed, what is imported, how it ends."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from bridge import __version__, cli
from bridge.errors import BridgeError, ConfigError, ContractError, KafkaUnavailable, UsageError

ROOT = Path(__file__).parents[2]
PRESENT = [name for name, command in cli.COMMANDS.items() if cli.is_present(command)]


def ended(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    """Run the command line in this process; return its exit status and what it printed."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    return (exit_.value.code, *capsys.readouterr())


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` prints the package's version and ends well."""
    assert ended(["--version"], capsys) == (0, f"binance-bridge {__version__}\n", "")


def test_help_lists_every_command_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    """``--help`` has a line for each command there is, and an example."""
    status, out, err = ended(["--help"], capsys)
    assert (status, err) == (0, "")
    assert "Example: binance-bridge" in out
    for name in PRESENT:
        assert f" {name} " in out


def leaves(command: object, words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the words of each command that does something, groups' members included."""
    inside = getattr(command, "commands", {})
    if not inside:
        return [words]
    return [leaf for name, member in inside.items() for leaf in leaves(member, (*words, name))]


@pytest.mark.parametrize("name", PRESENT)
def test_each_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command, and each command of a group, explains itself and shows an example."""
    whole = typer.main.get_command(cli.application(name))
    for words in leaves(whole.commands[name], (name,)):
        status, out, err = ended([*words, "--help"], capsys)
        assert (status, err) == (0, ""), words
        assert "Example: binance-bridge" in " ".join(out.split()), words


def test_help_imports_no_command() -> None:
    """``--help`` is quick because it imports no command and none of the heavy libraries."""
    script = (
        "import sys\nfrom bridge.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as exit_:\n    assert exit_.code == 0\n"
        "heavy = {'aiohttp', 'aiokafka', 'pydantic', 'fastavro', 'bridge.config', 'bridge.cli.config'}\n"
        "print('imported', sorted(heavy & set(sys.modules)))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
    )
    assert ran.stdout.splitlines()[-1] == "imported []"


def test_a_command_whose_module_is_not_there_is_not_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command of the table without its module is neither listed nor known."""
    monkeypatch.setitem(cli.COMMANDS, "absent", cli.Command("bridge.cli.absent", "absent", "Not there."))
    assert "absent" not in ended(["--help"], capsys)[1]
    assert ended(["absent"], capsys)[0] == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["statsu"], "No such command 'statsu'"),
        (["status", "--nonsense"], "No such option: --nonsense"),
        (["config", "shwo"], "No such command 'shwo'"),
        (["status", "--url"], "requires an argument"),
        (["status", "--url", "ftp://x"], "--url: found ftp://x; expected such as http://127.0.0.1:9464"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_wrong_usage_ends_with_2(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command, option or value is one message on standard error and status 2."""
    status, out, err = ended(arguments, capsys)
    assert (status, out) == (2, "")
    assert says in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConfigError("wrong key"), 2),
        (UsageError("wrong call"), 2),
        (KafkaUnavailable("no broker"), 1),
        (ContractError("wrong file"), 1),
        (BridgeError("something"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_errors_raised_on_purpose_are_one_line(
    error: BridgeError, expected: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The project's own errors become one message without a traceback, and status 1 or 2."""

    def failing(asked: str | None) -> typer.Typer:
        app = typer.Typer(pretty_exceptions_enable=False)

        @app.command()
        def fail() -> None:
            raise error

        return app

    monkeypatch.setattr(cli, "application", failing)
    assert ended([], capsys) == (expected, "", f"binance-bridge: {error}\n")


def test_the_package_is_the_command() -> None:
    """``python -m bridge`` is the command line, with its exit status."""
    ran = subprocess.run(
        [sys.executable, "-m", "bridge", "config", "check", "none.yaml"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 2
    assert ran.stderr.startswith("binance-bridge: none.yaml: cannot be read")


def test_the_configuration_is_shown_with_secrets_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``config show`` prints every key in force and no password; ``BRIDGE_CONFIG`` names the file."""
    file = tmp_path / "bridge.yaml"
    file.write_text(
        "environment: prod\nkafka: {bootstrap_servers: 'b:1', security_protocol: SASL_SSL, "
        "sasl_username: me, sasl_password: hunter2}\n"
    )
    monkeypatch.setenv("BRIDGE_CONFIG", str(file))
    for options in ([], ["--json"]):
        status, out, err = ended(["config", "show", *options], capsys)
        assert (status, err) == (0, "")
        assert "hunter2" not in out
        assert "********" in out
        assert "linger_ms" in out
