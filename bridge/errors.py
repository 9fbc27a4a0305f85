"""Every error this package raises on purpose.

::

    BridgeError
    ├── ConfigError          a setting is missing or wrong; exit status 2
    ├── ContractError        our own files do not fit each other (avro/, topics/)
    ├── UsageError           a command was called wrongly; exit status 2
    ├── SourceError          Binance's side
    │   ├── UnexpectedMessage   bytes that are not what the stream promises; goes to dead-letter
    │   ├── RequestRefused      the exchange answered a request with an error
    │   ├── RateLimited         429 or 418; carries how long to wait
    │   └── ConnectionLost      retried
    ├── SinkError            Kafka's side
    │   ├── KafkaUnavailable    no broker answers
    │   ├── TopicMismatch       a topic is missing or not as the catalogue says
    │   └── DeliveryFailed      records that could not be delivered in the time given
    ├── DecodeError          bytes read from Kafka are not a record we know
    ├── NotInSync            a live order book that is not proven to be the exchange's was read, or a table that ended
    └── BookTooThin          an order book holds less than an amount to fill

A message names the culprit and the mend. None carries a credential, a signature or a signed URL.
"""

from __future__ import annotations


class BridgeError(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(BridgeError):
    """A setting is missing or wrong: names the key, what was found and what would be right."""


class ContractError(BridgeError):
    """A file of ``avro/`` or ``topics/`` is wrong or does not fit another one."""


class UsageError(BridgeError):
    """A command was called wrongly."""


class SourceError(BridgeError):
    """Something on Binance's side."""


class UnexpectedMessage(SourceError):  # noqa: N818 - the field's own word
    """A message that is not what its stream promises; ``str()`` says where it differs."""


class RequestRefused(SourceError):  # noqa: N818
    """The exchange answered a request with an error.

    Attributes:
        status: HTTP status, or the WebSocket API's status.
        code: Binance's error code (``-1121``), where the body had one.
    """

    def __init__(self, endpoint: str, status: int, code: int | None, message: str) -> None:
        self.endpoint, self.status, self.code = endpoint, status, code
        super().__init__(
            f"{endpoint}: HTTP {status}" + (f", code {code}" if code is not None else "") + f": {message}"
        )


class RateLimited(SourceError):  # noqa: N818
    """The exchange refused for too many requests (429) or a ban (418).

    Attributes:
        retry_after: seconds to wait, as the exchange said.
        banned: whether it was a ban of the IP (418).
    """

    def __init__(self, endpoint: str, retry_after: float, *, banned: bool) -> None:
        self.retry_after, self.banned = retry_after, banned
        super().__init__(
            f"{endpoint}: {'banned' if banned else 'rate limited'}, retry after {retry_after:g} s"
        )


class ConnectionLost(SourceError):  # noqa: N818
    """A connection to the exchange could not be opened or ended."""


class SinkError(BridgeError):
    """Something on Kafka's side."""


class KafkaUnavailable(SinkError):  # noqa: N818
    """No broker answers; names the bootstrap servers and the reason."""


class TopicMismatch(SinkError):  # noqa: N818
    """Topics are missing or differ from the catalogue; names each one and the command that mends it."""


class DeliveryFailed(SinkError):  # noqa: N818
    """Records that could not be delivered in the time given."""


class DecodeError(BridgeError):
    """Bytes read from Kafka are not a record this version knows."""


class NotInSync(BridgeError):  # noqa: N818
    """A live order book was read that is not proven to be the exchange's, or a table that is not kept current.

    Says why, and what heals it.
    """


class BookTooThin(BridgeError):  # noqa: N818
    """An order book holds less than the amount to fill; says how much there is."""
