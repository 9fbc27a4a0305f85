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
