"""``binance-bridge simulate``: the exchange simulator alone."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path  # noqa: TC003 - typer evaluates the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.cli import stopping

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.simulator import SimulatorSettings


def simulate(
    *,
    seed: Annotated[int, typer.Option(help="The same seed makes the same market and the same faults.")] = 1,
    symbols: Annotated[int, typer.Option(min=1, help="Symbols that each market trades.")] = 10,
    rate: Annotated[
        float,
        typer.Option(
            min=0.001, help="Orders placed, withdrawn and taken a second, over all symbols and markets."
        ),
    ] = 100.0,
    faults: Annotated[Path | None, typer.Option(help="Fault plan, YAML or JSON.")] = None,
    accounts: Annotated[
        Path | None, typer.Option(help="Accounts with their keys, and what happens on them; YAML or JSON.")
    ] = None,
    capture: Annotated[
        list[Path] | None,
        typer.Option(help="Replay this recording in place of a made-up market; once for each market."),
    ] = None,
    speed: Annotated[
        float, typer.Option(min=0, help="Of a replay: 1 as recorded, N times as fast, 0 as fast as possible.")
    ] = 1.0,
    ground_truth: Annotated[Path | None, typer.Option(help="Write every event to this file.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="Control endpoint; 0: a free port.")] = 0,
    base_port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65527,
            help="First of nine ports: stream, REST, WebSocket API of spot, usdm, coinm; 0: free ports.",
        ),
    ] = 0,
) -> None:
    """Run the exchange simulator until SIGTERM or SIGINT.

    Prints its endpoints as one line of JSON when it is ready.

    Example: binance-bridge simulate --seed 7 --symbols 50 --rate 2000 --faults faults.yaml
    """
    from bridge.simulator import AccountsPlan, SimulatorSettings, read_accounts, read_plan

    settings = SimulatorSettings(
        seed=seed,
        symbols=symbols,
        rate=rate,
        captures=tuple(capture or ()),
        speed=speed,
        faults=read_plan(faults) if faults is not None else (),
        accounts=read_accounts(accounts) if accounts is not None else AccountsPlan(),
        ground_truth=ground_truth,
        host=host,
        http_port=http_port,
        base_port=base_port,
    )
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_run(settings))
    stopping.ended()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the faster event loop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _run(settings: SimulatorSettings) -> None:
    from bridge.errors import ConfigError
    from bridge.simulator import Simulator

    simulator = Simulator(settings)
    try:
        await simulator.__aenter__()
    except OSError as error:
        raise ConfigError(f"the simulator cannot start: {error}") from error
    running = asyncio.ensure_future(simulator.wait())
    stopping.on_stop(running.cancel)
    print(json.dumps(simulator.endpoints), flush=True)
    try:
        await running
    except asyncio.CancelledError:
        return
    finally:
        await simulator.__aexit__(None, None, None)
