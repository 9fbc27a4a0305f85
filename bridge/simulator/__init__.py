"""The exchange simulator: Binance's wire, made-up or recorded markets, faults and ground truth."""

from bridge.simulator.accounts.plan import AccountsPlan, read_accounts
from bridge.simulator.exchange import Answer, Emission, Exchange
from bridge.simulator.faults import Fault, Planned, read_plan
from bridge.simulator.limits import Limits
from bridge.simulator.simulator import Simulator, SimulatorSettings

__all__ = [
    "AccountsPlan",
    "Answer",
    "Emission",
    "Exchange",
    "Fault",
    "Limits",
    "Planned",
    "Simulator",
    "SimulatorSettings",
    "read_accounts",
    "read_plan",
]
