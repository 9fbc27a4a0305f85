"""The way of a user event to those who listen: WebSocket API sessions on spot, listen keys on futures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.simulator import wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bridge.model import Market
    from bridge.simulator.accounts.listen_keys import ListenKey, ListenKeys
    from bridge.simulator.accounts.registry import UserEvent
    from bridge.simulator.accounts.sessions import Session
    from bridge.simulator.connection import Client


class UserStreams:
    """Knows who listens to which account.

    Args:
        clients: the stream connections by number.
        listen_keys: the listen keys that are alive.

    Attributes:
        sessions: the WebSocket API connections by number.
    """

    def __init__(self, clients: Mapping[int, Client], listen_keys: ListenKeys) -> None:
        self._clients, self._listen_keys = clients, listen_keys
        self.sessions: dict[int, Session] = {}

    def deliver(self, event: UserEvent) -> None:
        """Send an event to everyone who listens to its account."""
        if event.market == "spot":
            for session in self.sessions.values():
                session.deliver(event)
            return
        key = self._listen_keys.of(event.account, event.market)
        if key is None:
            return
        for client in self._on(key):
            events = client.listens[key.text]
            if not events or event.kind in events:
                _send(client, key.text, event.data)

    def expire(self, key: ListenKey, now_ms: int) -> None:
        """Tell connections that their listen key is over; they stay open, and silent."""
        for client in self._on(key):
            tell_expired(client, key.text, now_ms)

    def private(self, account: str, market: Market) -> Iterator[Client]:
        """Yield the stream connections that listen to an account."""
        key = self._listen_keys.of(account, market)
        if key is not None:
            yield from self._on(key)

    def _on(self, key: ListenKey) -> Iterator[Client]:
        for client in self._clients.values():
            # an unrouted URL of usdm connects, and carries no user data
            routed = client.market != "usdm" or client.target.path == "private"
            if client.market == key.market and routed and key.text in client.listens:
                yield client


def tell_expired(client: Client, key: str, now_ms: int) -> None:
    """Send ``listenKeyExpired``."""
    _send(client, key, wire.compact({"e": "listenKeyExpired", "E": now_ms, "listenKey": key}))


def _send(client: Client, key: str, data: bytes) -> None:
    client.send_text(wire.wrap(key, data) if client.session.combined else data)
