"""Every setting of private streams, with its default and the reason for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateSettings:
    """How accounts are listened to. Times in seconds.

    Attributes:
        recv_window_ms: how old a signed request may be when the exchange takes it; more than 60,000 is refused.
        accounts_per_connection: spot accounts that share a connection; the exchange allows 1000. One each keeps
            accounts out of each other's trouble.
        retry_minimum_seconds: wait after the first refusal of a key; doubles with each refusal in a row,
        retry_maximum_seconds: up to this.
        settled_seconds: events must have been listened to for this long before the wait starts from the minimum again.
        probe_seconds: time between two questions whether our subscriptions still stand: the exchange does not always
            tell what it drops.
        keep_alive_seconds: time between two extensions of a listen key; it lives for 60 minutes.
        reconcile_after_seconds: time between the opening of a stream and the first question to REST, whose tables of
            orders and trades may lag behind the stream.
        clock_seconds: age at which the offset of the exchange's clock is measured anew.
        clock_samples: questions for one measurement; the quickest answer counts.
        page: rows asked for at once; the exchange gives 1000 at most.
        unknown_days: how far back to ask of futures income where nothing is known; the exchange keeps 3 months.
    """

    recv_window_ms: int = 5_000
    accounts_per_connection: int = 1

    retry_minimum_seconds: float = 5.0
    retry_maximum_seconds: float = 900.0
    settled_seconds: float = 60.0

    probe_seconds: float = 60.0
    keep_alive_seconds: float = 1_800.0

    reconcile_after_seconds: float = 1.0

    clock_seconds: float = 900.0
    clock_samples: int = 3

    page: int = 1_000
    unknown_days: int = 7
