"""The control endpoint: watch the simulator and break it by HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aiohttp import web

from bridge.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.simulator.simulator import Simulator


def control_app(simulator: Simulator) -> web.Application:
    """Return the control endpoint of ``simulator``."""

    async def state(_request: web.Request) -> web.Response:
        return web.json_response(simulator.state())

    async def endpoints(_request: web.Request) -> web.Response:
        return web.json_response(simulator.endpoints)

    async def flush(_request: web.Request) -> web.Response:
        simulator.note_accounts()
        simulator.ground_truth.flush()
        return web.json_response({"events": simulator.ground_truth.events})

    async def faults(request: web.Request) -> web.Response:
        try:
            planned = simulator.plan(json.loads(await request.text()))
        except json.JSONDecodeError as error:
            return web.json_response({"error": f"not JSON: {error}"}, status=400)
        except ConfigError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"planned": planned, "done": simulator.state()["faults"]})

    async def stop_market(_request: web.Request) -> web.Response:
        simulator.stop_market()
        simulator.ground_truth.flush()
        return web.json_response({"running": False, "events": simulator.ground_truth.events})

    async def resume(_request: web.Request) -> web.Response:
        simulator.resume()
        return web.json_response({"running": True})

    app = web.Application()
    app.router.add_get("/state", state)
    app.router.add_get("/endpoints", endpoints)
    app.router.add_get("/flush", flush)
    app.router.add_post("/faults", faults)
    app.router.add_post("/stop-market", stop_market)
    app.router.add_post("/resume", resume)
    _add_accounts(app, simulator)
    return app


def _add_accounts(app: web.Application, simulator: Simulator) -> None:
    async def accounts(_request: web.Request) -> web.Response:
        return web.json_response([account.state() for account in simulator.accounts.accounts.values()])

    async def account(request: web.Request) -> web.Response:
        try:
            found = simulator.accounts.named(request.match_info["name"])
        except ConfigError as error:
            return web.json_response({"error": str(error)}, status=404)
        return web.json_response(found.state())

    async def open_account(request: web.Request) -> web.Response:
        return await _planned(request, simulator.open_account)

    async def add_key(request: web.Request) -> web.Response:
        return await _planned(request, lambda found: simulator.add_key(request.match_info["name"], found))

    async def script(request: web.Request) -> web.Response:
        return await _planned(request, simulator.play)

    app.router.add_get("/accounts", accounts)
    app.router.add_post("/accounts", open_account)
    app.router.add_get("/accounts/{name}", account)
    app.router.add_post("/accounts/{name}/keys", add_key)
    app.router.add_post("/script", script)


async def _planned(request: web.Request, carry_out: Callable[[object], object]) -> web.Response:
    try:
        return web.json_response(carry_out(json.loads(await request.text())))
    except json.JSONDecodeError as error:
        # not the text itself: it may hold a secret
        return web.json_response({"error": f"not JSON: {error.msg}"}, status=400)
    except ConfigError as error:
        return web.json_response({"error": str(error)}, status=400)
