"""The catalogue: every channel of ``topics/streams/``, compiled for each market, and the families of topics."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec
import yaml

from bridge import contracts, schema
from bridge.core.account_compile import AccountSources, CompiledSource, compile_source
from bridge.core.account_records import CHANNEL
from bridge.core.compile import CompiledChannel, compile_channel, constant_bytes
from bridge.core.declaration import AccountSource, Channel, OnMarket, Topics
from bridge.core.history import StreamHistory, stream_history
from bridge.core.series import Series
from bridge.errors import ConfigError, ContractError
from bridge.model import MARKETS, Environment, Market, Stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bridge.core.instruments import Instrument, Instruments
    from bridge.core.schema import Schema

Declared = TypeVar("Declared")

_CHOICE = re.compile(r"(?P<name>[a-z][a-z-]*)(?:_(?P<option>[^@]+))?(?P<at>(?:@[^@]+)*)")

_PATHS: dict[Market, str] = {"spot": "/api/", "usdm": "/fapi/", "coinm": "/dapi/"}

CONTROL = "control"
"""Raw channel of answers to SUBSCRIBE and its kin, in the market's ``api`` topic."""
UNKNOWN = "unknown"
"""Raw channel of messages whose stream is not in the catalogue."""

USER = CHANNEL
"""Raw channel of private events and of private answers."""


class Choice(NamedTuple):
    """A channel as configured: ``kline_1m``, ``depth@100ms``, ``mark-price@arr``.

    Attributes:
        channel: the channel.
        option: its option (``1m``), or "".
        suffix: the speed's suffix in the stream name.
        speed: the speed's name.
        all: the all-market stream instead of one a symbol.
    """

    channel: str
    option: str
    suffix: str
    speed: str
    all: bool


class ChosenStream(NamedTuple):
    """A stream with what deriving records from it needs.

    Attributes:
        stream: the stream to subscribe to.
        choice: the configured channel.
        instrument: the exchange symbol whose instrument its records are of; None where messages tell.
    """

    stream: Stream
    choice: Choice
    instrument: str | None


@dataclass(frozen=True, slots=True)
class TopicNames:
    """Names of the topics of one environment (contract, section 3).

    Attributes:
        environment: the environment.
        namespace: first part of all names; another one where replay writes beside live.
    """

    environment: Environment
    namespace: str = "binance"

    def of(self, *parts: str) -> str:
        """Return ``<namespace>.<environment>.<parts…>``."""
        return ".".join((self.namespace, self.environment, *parts))

    def raw(self, market: Market, channel: str) -> str:
        """Return the raw topic of a channel."""
        return self.of("raw", market, channel)

    def unified(self, structure: str) -> str:
        """Return the topic of a unified structure."""
        return self.of("unified", structure)

    def state(self, structure: str) -> str:
        """Return the topic of the newest values of a structure."""
        return self.of("state", structure)


class Catalogue:
    """All declared channels and topics."""

    def __init__(
        self,
        channels: Mapping[tuple[Market, str], CompiledChannel],
        topics: Topics,
        accounts: AccountSources,
    ) -> None:
        self.channels = channels
        self.topics = topics
        self.accounts = accounts

    @property
    def answered(self) -> frozenset[str]:
        """The structures whose records also come of REST's answers: books' snapshots, and what fills gaps."""
        filled = {
            structure
            for compiled in self.channels.values()
            if any(past.path is not None for past in compiled.declaration.backfill.values())
            for structure in compiled.structures
        }
        return frozenset({"order-book"} | filled)

    def names(self, market: Market) -> list[str]:
        """Return the channels of a market, by name."""
        return sorted(name for on, name in self.channels if on == market)

    def channel(self, market: Market, name: str) -> CompiledChannel:
        """Return a channel of a market.

        Raises:
            ConfigError: the market has no such channel; names the nearest.
        """
        found = self.channels.get((market, name))
        if found is None:
            known = self.names(market)
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise ConfigError(f"{market} has no channel {name!r}; {hint}")
        return found

    def on_market(self, market: Market, name: str) -> OnMarket:
        """Return how a channel looks on a market."""
        return self.channel(market, name).declaration.markets[market]

    def parse_channel(self, market: Market, text: str) -> Choice:
        """Return what a channel of the configuration asks for.

        Raises:
            ConfigError: no such channel, option or speed on the market; says what there is.
        """
        match = _CHOICE.fullmatch(text)
        if match is None:
            near = difflib.get_close_matches(text.lower(), self.names(market), 1)
            hint = f"did you mean {near[0]!r}?" if near else "expected such as trade, kline_1m or depth@100ms"
            raise ConfigError(f"{text!r} is not a channel; {hint}")
        name, option, at = match["name"], match["option"] or "", match["at"].split("@")[1:]
        on = self.on_market(market, name)
        all_markets = "arr" in at or on.stream is None
        speeds = [part for part in at if part != "arr"]
        if all_markets and on.all is None:
            raise ConfigError(f"{market} has no all-market stream of {name}; remove @arr")
        self._check_option(market, name, on, option)
        if len(speeds) > 1:
            raise ConfigError(f"{text!r} names {len(speeds)} speeds; one is enough")
        if not speeds:
            speed = next(iter(on.speeds), "")
        elif speeds[0] in on.speeds:
            speed = speeds[0]
        elif on.speeds:
            raise ConfigError(
                f"{name} has no speed {speeds[0]!r} on {market}; there are {', '.join(on.speeds)}"
            )
        else:
            raise ConfigError(f"{name} has one speed only on {market}; remove @{speeds[0]}")
        return Choice(name, option, on.speeds.get(speed, ""), speed, all_markets)

    @staticmethod
    def _check_option(market: Market, name: str, on: OnMarket, option: str) -> None:
        if on.option is None and option:
            raise ConfigError(f"{name} takes no option on {market}; remove _{option}")
        if on.option is not None and option not in on.option.values:
            found = f"has no {on.option.name} {option!r}" if option else f"wants its {on.option.name}"
            example = f"{name}_{on.option.values[0]}"
            raise ConfigError(f"{name} {found}; there are {', '.join(on.option.values)} (such as {example})")

    def stream(self, market: Market, choice: Choice, instrument: Instrument | None) -> ChosenStream:
        """Return the stream of a choice for an instrument (None for the all-market stream)."""
        on = self.on_market(market, choice.channel)
        pattern = on.all if instrument is None else on.stream
        assert pattern is not None
        fields = {"speed": choice.suffix}
        if on.option is not None:
            fields[on.option.name] = choice.option
        symbol = None
        if instrument is not None:
            by_pair = "{pair}" in pattern and "{contract_type}" not in pattern
            symbol = instrument.pair if by_pair else instrument.id
            fields |= {
                "symbol": instrument.id.lower(),
                "pair": instrument.pair.lower(),
                "contract_type": instrument.contract_type.lower(),
            }
        stream = Stream(
            market=market,
            channel=choice.channel,
            name=pattern.format(**fields),
            symbol=symbol,
            path=on.path,
            first_frame_seconds=on.first_frame_seconds,
            cadence_seconds=on.cadence_seconds,
        )
        return ChosenStream(stream, choice, symbol)

    def named(self, market: Market, channel: str, name: str, symbol: str | None) -> ChosenStream | None:
        """Return the stream that raw records name; None where the catalogue declares no such stream (any more)."""
        if (market, channel) not in self.channels:
            return None
        on = self.on_market(market, channel)
        pattern = on.all if symbol is None else on.stream
        match = None if pattern is None else _name_pattern(pattern, on).fullmatch(name)
        if match is None:
            return None
        given = match.groupdict()
        suffix = given.get("speed") or ""
        speed = next((speed for speed, text in on.speeds.items() if text == suffix), "")
        choice = Choice(channel, given.get("option") or "", suffix, speed, symbol is None)
        stream = Stream(market, channel, name, symbol, on.path, on.first_frame_seconds, on.cadence_seconds)
        return ChosenStream(stream, choice, symbol)

    def series(self, market: Market, channel: str, name: str, symbol: str | None) -> Series | None:
        """Return what the unified records of a stream know it by; None where the catalogue has no such stream."""
        chosen = self.named(market, channel, name, symbol)
        if chosen is None:
            return None
        return Series(market, channel, symbol or "", chosen.choice.option, _zone(chosen.choice))

    def choose(
        self, market: Market, channels: Iterable[str], symbols: str | Iterable[str], quote: Iterable[str] | None,
        instruments: Instruments,
    ) -> list[ChosenStream]:  # fmt: skip
        """Return the streams of one subscription of the configuration, without repeats, in its order.

        Raises:
            ConfigError: a channel or a symbol the market does not have.
        """
        found: dict[str, ChosenStream] = {}
        wanted: list[Instrument] | None = None
        for text in channels:
            choice = self.parse_channel(market, text)
            if choice.all:
                chosen = [self.stream(market, choice, None)]
            else:
                if wanted is None:
                    wanted = select(instruments, symbols, quote)
                chosen = [self.stream(market, choice, i) for i in wanted if _has_stream(choice, i)]
            for one in chosen:
                found.setdefault(one.stream.name, one)
        return list(found.values())

    def constants(self, compiled: CompiledChannel, choice: Choice) -> tuple[bytes, ...]:
        """Return the encoded constants a channel's encoder wants of a stream."""
        values = {
            "option": choice.option,
            "zone": _zone(choice),
        }
        where = f"topics/streams/{compiled.channel}.yaml"
        return tuple(constant_bytes(values[name], target, where) for name, target in compiled.constants)

    def history(self, chosen: ChosenStream) -> StreamHistory | str:
        """Return where the past of a stream is to be had, or why nowhere."""
        stream, choice = chosen.stream, chosen.choice
        compiled = self.channel(stream.market, stream.channel)
        return stream_history(compiled, stream, choice.option, _zone(choice))


def _check_history(compiled: CompiledChannel) -> None:
    """Compile what a channel declares of its past, so that a wrong declaration is told at the start."""
    stream = Stream(compiled.market, compiled.channel, "", "BTCUSDT", "", 0.0, None)
    stream_history(compiled, stream, "1m", "")


def _zone(choice: Choice) -> str:
    return choice.speed if choice.speed.startswith(("+", "-")) else ""


def _name_pattern(pattern: str, on: OnMarket) -> re.Pattern[str]:
    """Return what matches the stream names of a pattern, with its option and speed."""
    fields = dict.fromkeys(("symbol", "pair", "contract_type"), "[^@]+")
    fields["speed"] = f"(?P<speed>{'|'.join(map(re.escape, on.speeds.values()))})"
    if on.option is not None:
        fields[on.option.name] = f"(?P<option>{'|'.join(map(re.escape, on.option.values))})"
    return re.compile(
        "".join(fields.get(part[1:-1], re.escape(part)) for part in re.split(r"({\w+})", pattern))
    )


def _has_stream(choice: Choice, instrument: Instrument) -> bool:
    """Whether an instrument has the stream: continuous candles are of running contract types only."""
    return choice.channel != "continuous-kline" or instrument.contract_type.split("_")[0] in {
        "PERPETUAL", "CURRENT", "NEXT", "TRADIFI",
    }  # fmt: skip


def select(
    instruments: Instruments, symbols: str | Iterable[str], quote: Iterable[str] | None
) -> list[Instrument]:
    """Return the instruments a subscription names, by unified or exchange name; ``"*"`` is all that trade.

    Raises:
        ConfigError: a symbol the market does not list; names the nearest. Or none is left.
    """
    if symbols == "*":
        quotes = None if quote is None else set(quote)
        chosen = [i for i in instruments.by_id.values() if i.active and (quotes is None or i.quote in quotes)]
        if not chosen:
            raise ConfigError(
                f"no symbol of {instruments.market} trades against {', '.join(sorted(quotes or ()))}; check quote"
            )
        return chosen
    chosen = []
    for name in symbols:
        instrument = instruments.find(name)
        if instrument is None:
            known = [*instruments.by_symbol, *instruments.by_id]
            near = difflib.get_close_matches(name, known, 1, 0.7)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{instruments.market} lists no symbol {name!r}{hint}")
        chosen.append(instrument)
    return chosen


@cache
def catalogue() -> Catalogue:
    """Return the catalogue, compiled once a process.

    Raises:
        ContractError: a file of ``topics/`` is wrong or does not fit ``avro/``.
    """
    schemas = schema.schemas()
    channels: dict[tuple[Market, str], CompiledChannel] = {}
    for file, text in contracts.texts("topics/streams", ".yaml"):
        declaration = _declared(f"topics/streams/{file}.yaml", text, Channel)
        name = file.partition(".")[0]
        for market in MARKETS:
            if market in declaration.markets:
                if (market, name) in channels:
                    raise ContractError(f"topics/streams/{file}.yaml: {name} is declared twice for {market}")
                channels[market, name] = compile_channel(name, declaration, market, schemas, file)
                _check_history(channels[market, name])
    topics = _declared("topics/topics.yaml", contracts.text("topics/topics.yaml"), Topics)
    return Catalogue(channels, topics, _account_sources(schemas))


def _account_sources(schemas: Mapping[str, Schema]) -> AccountSources:
    events: dict[tuple[Market, str], CompiledSource] = {}
    answers: dict[tuple[Market, str], CompiledSource] = {}
    for name, text in contracts.texts("topics/account", ".yaml"):
        declaration = _declared(f"topics/account/{name}.yaml", text, AccountSource)
        for market in declaration.markets:
            compiled = compile_source(name, declaration, market, schemas)
            if declaration.event is not None:
                _once(events, (market, declaration.event), compiled)
            for path in declaration.endpoints:
                if path.startswith(_PATHS[market]):
                    _once(answers, (market, path), compiled)
    return AccountSources(events, answers)


def _once(
    known: dict[tuple[Market, str], CompiledSource], key: tuple[Market, str], new: CompiledSource
) -> None:
    if key in known:
        raise ContractError(f"topics/account/{new.name}.yaml: {key[1]} is declared twice for {key[0]}")
    known[key] = new


def _declared(path: str, text: str, type_: type[Declared]) -> Declared:
    try:
        return msgspec.convert(yaml.safe_load(text), type_)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise ContractError(f"{path}: {error}") from error
