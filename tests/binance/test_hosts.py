import pytest

from bridge.binance.hosts import HOSTS, hosts_of, shown
from bridge.errors import ConfigError
from bridge.model import ENVIRONMENTS, MARKETS


def test_every_environment_knows_every_market():
    """Each of the nine pairs has encrypted stream and REST hosts."""
    for environment in ENVIRONMENTS:
        for market in MARKETS:
            hosts = HOSTS[environment][market]
            assert hosts.stream.startswith("wss://")
            assert hosts.rest.startswith("https://")
            assert hosts.ws_api is None or hosts.ws_api.startswith("wss://")


def test_stream_urls_are_combined_and_carry_the_path_of_the_market():
    """Futures on the USD side have /public and /market; the others have no path."""
    prod = HOSTS["prod"]
    assert prod["usdm"].stream_url("public") == "wss://fstream.binance.com/public/stream"
    assert prod["coinm"].stream_url("") == "wss://dstream.binance.com/stream"
    assert prod["spot"].stream_url("") == "wss://stream.binance.com:9443/stream"
    assert prod["spot"].stream_url("", attempt=1) == "wss://stream.binance.com:443/stream"
    assert prod["spot"].stream_url("", attempt=2) == "wss://stream.binance.com:9443/stream"


def test_endpoints_replace_what_they_name_and_nothing_else():
    """A simulator takes one market over, without the exchange's own fallbacks."""
    hosts = hosts_of("prod", {"spot": {"stream": "ws://127.0.0.1:9443/", "ws_api": None}})
    assert hosts["spot"].stream_url("", attempt=1) == "ws://127.0.0.1:9443/stream"
    assert hosts["spot"].rest == "https://api.binance.com"
    assert hosts["spot"].ws_api == HOSTS["prod"]["spot"].ws_api
    assert hosts["usdm"] == HOSTS["prod"]["usdm"]


def test_the_second_leg_goes_to_another_host_and_each_falls_back_to_the_others():
    """Spot's legs begin at two hosts; both know all of them, so that neither is lost with one host."""
    first, second = HOSTS["prod"]["spot"].legs(2)
    assert first.stream_url("") == "wss://stream.binance.com:9443/stream"
    assert second.stream_url("") == "wss://data-stream.binance.vision/stream"
    ways = [{leg.stream_url("", attempt) for attempt in range(3)} for leg in (first, second)]
    assert ways[0] == ways[1]
    assert len(ways[0]) == 3
    assert second.rest == first.rest


def test_both_legs_of_a_market_with_one_host_go_there():
    """USD-margined futures have one host: two connections to it."""
    first, second = HOSTS["prod"]["usdm"].legs(2)
    assert first == second
    assert [second.stream_url("market", attempt) for attempt in range(2)] == [
        "wss://fstream.binance.com/market/stream"
    ] * 2


def test_no_environment_has_an_unencrypted_second_leg():
    """Every pair of environment and market gives two legs, encrypted."""
    for environment in ENVIRONMENTS:
        for market in MARKETS:
            assert len(HOSTS[environment][market].legs(1)) == 1
            for leg in HOSTS[environment][market].legs(2):
                assert all(leg.stream_url("", attempt).startswith("wss://") for attempt in range(3))


def test_an_endpoint_of_two_urls_is_one_for_each_leg():
    """The first is the first leg's, the second the second leg's; one alone has the second to fall back to."""
    hosts = hosts_of("prod", {"spot": {"stream": ("ws://127.0.0.1:1", "ws://127.0.0.1:2")}})["spot"]
    first, second = hosts.legs(2)
    assert first.stream_url("") == "ws://127.0.0.1:1/stream"
    assert second.stream_url("") == "ws://127.0.0.1:2/stream"
    (alone,) = hosts.legs(1)
    assert [alone.stream_url("", attempt) for attempt in range(3)] == [
        "ws://127.0.0.1:1/stream",
        "ws://127.0.0.1:2/stream",
        "ws://127.0.0.1:1/stream",
    ]


@pytest.mark.parametrize(
    ("endpoints", "message"),
    [
        ({"spto": {}}, "endpoints.spto is no market; did you mean spot"),
        ({"spot": {"streams": "ws://localhost"}}, "endpoints.spot.streams is unknown; did you mean stream"),
        ({"spot": {"stream": "ws://example.com"}}, "endpoints.spot.stream is unencrypted and example.com"),
        ({"usdm": {"rest": "http://10.0.0.1:80"}}, "endpoints.usdm.rest is unencrypted"),
        ({"spot": {"stream": "http://localhost"}}, "endpoints.spot.stream must be a base URL such as wss://"),
        ({"spot": {"rest": "localhost:80"}}, "endpoints.spot.rest must be a base URL such as https://"),
        ({"spot": {"rest": "https://u:p@host"}}, "without user, password or query"),
        ({"spot": {"ws_api": "wss://host?key=secret"}}, "without user, password or query"),
        ({"spot": {"rest": "https://host:port"}}, "can't be read"),
        ({"spot": {"stream": ["ws://localhost", "ws://example.com"]}}, "is unencrypted and example.com"),
        ({"spot": {"rest": ["https://a", "https://b"]}}, "only stream may be a list"),
    ],
)
def test_wrong_endpoints_are_named(endpoints, message):
    """The error names the key, never a password of the URL."""
    with pytest.raises(ConfigError) as raised:
        hosts_of("prod", endpoints)
    assert message in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "[::1]"])
def test_plain_text_is_fine_on_this_machine(host):
    """Loopback needs no TLS."""
    assert hosts_of("demo", {"spot": {"stream": f"ws://{host}:1"}})["spot"].stream == f"ws://{host}:1"


def test_plain_text_beyond_needs_to_be_allowed():
    """With allow_insecure a simulator may run on another host."""
    hosts = hosts_of("demo", {"spot": {"rest": "http://simulator:80"}}, allow_insecure=True)
    assert hosts["spot"].rest == "http://simulator:80"


def test_urls_are_shown_without_secrets():
    """Neither user, password nor query is shown."""
    assert shown("wss://u:p@host:9443/private/stream?listenKey=abc") == "wss://host:9443/private/stream"
    assert shown("ws://[::1]:80/stream") == "ws://[::1]:80/stream"
