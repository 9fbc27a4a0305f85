"""The HTTP endpoint over real sockets, and the commands that ask it."""

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bridge.errors import ConfigError
from bridge.http import HttpEndpoint, base_url
from bridge.status import ConnectionReport, StatusReport
from bridge.telemetry import Lifecycle, Telemetry
from tests.http.reports import connection_reports, status_report

ROOT = Path(__file__).parents[2]


class Subject:
    """A bridge as the endpoint sees it, to be turned this way and that."""

    def __init__(self) -> None:
        self.telemetry = Telemetry()
        self.report: StatusReport = status_report()
        self.connections: list[ConnectionReport] = connection_reports()
        self.ready = (True, "ready")
        self.live = (True, "alive")
        self.failure: Exception | None = None

    def status(self) -> StatusReport:
        if self.failure is not None:
            raise self.failure
        return self.report

    def endpoint(self, port: int = 0) -> HttpEndpoint:
        return HttpEndpoint(
            "127.0.0.1",
            port,
            self.telemetry.registry,
            status=self.status,
            ready=lambda: self.ready,
            live=lambda: self.live,
            connections=lambda: self.connections,
        )


@pytest.fixture
def subject() -> Subject:
    """A bridge at work."""
    return Subject()


@pytest.fixture
async def endpoint(subject: Subject) -> AsyncIterator[HttpEndpoint]:
    """Its endpoint, listening."""
    async with subject.endpoint() as listening:
        yield listening


@pytest.fixture
async def client(endpoint: HttpEndpoint) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the endpoint."""
    async with aiohttp.ClientSession(endpoint.url) as session:
        yield session


async def test_port_0_takes_a_free_one(endpoint: HttpEndpoint) -> None:
    """The endpoint tells the port that it was given."""
    assert endpoint.port > 0
    assert endpoint.url == f"http://127.0.0.1:{endpoint.port}"


async def test_the_log_says_where_the_status_page_is(
    subject: Subject, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever starts a bridge need not look the address up, which with port 0 could not be."""
    with caplog.at_level(logging.INFO, "bridge"):
        async with subject.endpoint() as listening:
            assert f"status page: {listening.url}" in caplog.text


async def test_metrics_are_prometheus_text(client: aiohttp.ClientSession, subject: Subject) -> None:
    """``/metrics`` serves the registry in the text format, values current."""
    subject.telemetry.emit(Lifecycle(event="connection.started", connection_id=1, market="spot"))
    async with client.get("/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        text = await answer.text()
    samples = {
        (sample.name, sample.labels.get("market")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["binance_bridge_connections_open", "spot"] == 1.0
    assert samples["binance_bridge_build_info", None] == 1.0


async def test_what_is_expected_is_counted_from_0(client: aiohttp.ClientSession, subject: Subject) -> None:
    """Every counter of the contract has its series for the channels that are subscribed before anything happens."""
    subject.telemetry.metrics.expect([("spot", "trade"), ("usdm", "depth")])
    async with client.get("/metrics") as answer:
        text = await answer.text()
    samples = {
        (sample.name.removeprefix("binance_bridge_"), *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    for name in ("messages_received", "message_bytes", "dead_letters", "gaps", "gap_events_recovered"):
        assert samples[f"{name}_total", "spot", "trade"] == 0
        assert samples[f"{name}_total", "depth", "usdm"] == 0
    for name in ("reconnects", "requests_resolved", "requests_rejected", "book_resyncs"):
        assert samples[f"{name}_total", "spot"] == samples[f"{name}_total", "usdm"] == 0
    assert samples["connections_open", "usdm"] == samples["books_synced", "usdm"] == 0
    assert samples["transactions_total", "committed"] == samples["transactions_total", "aborted"] == 0
    assert ("gaps_total", "depth", "spot") not in samples


async def test_metrics_speak_openmetrics_when_asked(client: aiohttp.ClientSession) -> None:
    """A scraper that prefers OpenMetrics gets it."""
    async with client.get("/metrics", headers={"Accept": "application/openmetrics-text"}) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert (await answer.text()).endswith("# EOF\n")


@pytest.mark.parametrize(("path", "part"), [("/healthz", "live"), ("/readyz", "ready")])
async def test_probes_answer_200_or_503(
    client: aiohttp.ClientSession, subject: Subject, path: str, part: str
) -> None:
    """A probe's status is the verdict and its text the reason."""
    async with client.get(path) as answer:
        assert (answer.status, await answer.text()) == (200, getattr(subject, part)[1] + "\n")
    setattr(subject, part, (False, "kafka does not answer"))
    async with client.get(path) as answer:
        assert (answer.status, await answer.text()) == (503, "kafka does not answer\n")


async def test_status_and_connections_are_json(client: aiohttp.ClientSession, subject: Subject) -> None:
    """``/status`` and ``/connections`` are the reports, non-ASCII symbols as they are."""
    async with client.get("/status") as answer:
        assert await answer.json() == subject.report
    async with client.get("/connections") as answer:
        assert await answer.json() == subject.connections
        assert "币安人生usdt@depth" in await answer.text()


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/readyz", "/status", "/connections", "/none"])
async def test_every_answer_has_the_protective_headers(client: aiohttp.ClientSession, path: str) -> None:
    """Nothing is cached, sniffed, framed or loaded from elsewhere, errors included; no version is told."""
    async with client.get(path) as answer:
        headers = answer.headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Server"] == "binance-bridge"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/status", "/metrics"])
async def test_only_reading_is_allowed(client: aiohttp.ClientSession, method: str, path: str) -> None:
    """Every other method is refused, and the answer says what is allowed."""
    async with client.request(method, path) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")


async def test_head_is_get_without_the_body(client: aiohttp.ClientSession) -> None:
    """A HEAD request has the headers of GET."""
    async with client.head("/status") as answer:
        assert (answer.status, await answer.read()) == (200, b"")


async def test_an_unknown_path_is_404(client: aiohttp.ClientSession) -> None:
    """An unknown path is not found, and what was asked is not echoed."""
    async with client.get("/none%3Cscript%3E") as answer:
        assert (answer.status, await answer.text()) == (404, "Not Found\n")


async def test_a_failing_report_does_not_end_the_endpoint(
    client: aiohttp.ClientSession, subject: Subject, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure inside is a 500 that tells nothing of it; the log does, and other paths go on."""
    subject.failure = RuntimeError("hunter2")
    with caplog.at_level(logging.ERROR):
        async with client.get("/status") as answer:
            assert answer.status == 500
            assert "hunter2" not in await answer.text()
            assert answer.headers["X-Frame-Options"] == "DENY"
    assert "answering /status failed" in caplog.text
    async with client.get("/healthz") as answer:
        assert answer.status == 200


async def test_a_port_in_use_is_named(endpoint: HttpEndpoint, subject: Subject) -> None:
    """A port that is taken is an error that names the address and the keys to change."""
    with pytest.raises(ConfigError) as caught:
        await subject.endpoint(endpoint.port).start()
    assert f"cannot listen on 127.0.0.1:{endpoint.port}, address already in use; " in str(caught.value)
    assert "set http.host and http.port" in str(caught.value)


async def test_stop_frees_the_port_and_may_be_called_twice(subject: Subject) -> None:
    """After a stop nothing listens any more, and an open connection does not hold it up."""
    endpoint = subject.endpoint()
    await endpoint.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    async with asyncio.timeout(30):
        await endpoint.stop()
        await reader.read()
    await endpoint.stop()
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", endpoint.port)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("::", "http://[::1]:1"),
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("bridge-0", "http://bridge-0:1"),
    ],
)
def test_the_url_can_be_opened_on_this_machine(host: str, expected: str) -> None:
    """An address that means every interface is no address to ask; loopback is."""
    assert base_url(host, 1) == expected


async def command(*arguments: str) -> tuple[int | None, str, str]:
    """Run the command line as a process; return its exit status and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bridge", *arguments,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(300):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_status_is_one_page(endpoint: HttpEndpoint) -> None:
    """``status`` shows the report's figures; it finds the endpoint by ``--url``."""
    status, out, err = await command("status", "--url", endpoint.url)
    assert (status, err) == (0, "")
    assert "bridge-0 · testnet · version 0.1.0 · up 1 d 2 h · ready" in out
    for shown in ("48,123,456", "binance.testnet.unified.trade", "p50 12.3 ms, p99 –", "1.0 MiB of 256.0 MiB",
                  "1 open, 7 found", "spot 312", "connection.retrying market=spot"):  # fmt: skip
        assert shown in out, shown


async def test_status_says_when_not_ready(endpoint: HttpEndpoint, subject: Subject) -> None:
    """A bridge that is not ready is shown with its reason."""
    subject.report |= {"ready": False, "reason": "kafka does not answer"}
    _, out, _ = await command("status", "--url", endpoint.url)
    assert "NOT READY: kafka does not answer" in out


async def test_status_finds_the_endpoint_by_the_configuration(
    endpoint: HttpEndpoint, subject: Subject, tmp_path: Path
) -> None:
    """With ``--config`` the endpoint is where ``http`` says, and ``--json`` prints the report as it is."""
    file = tmp_path / "bridge.yaml"
    file.write_text(
        f"environment: testnet\nkafka: {{bootstrap_servers: 'b:1'}}\nhttp: {{host: 0.0.0.0, port: {endpoint.port}}}\n"
    )
    status, out, _ = await command("status", "--config", str(file), "--json")
    assert status == 0
    assert json.loads(out) == subject.report


async def test_connections_are_listed(endpoint: HttpEndpoint, subject: Subject) -> None:
    """``connections`` has a row a connection, or with ``--streams`` a row a stream; ``--json`` is the report."""
    for options, shown in (
        (
            (),
            (
                "00ab34cd12ef9012",
                "data-stream.binance.vision",
                "subscribed",
                "13 min 32 s",
                "12,345",
                "depth, trade",
            ),
        ),
        (("--streams",), ("btcusdt@trade", "币安人生usdt@depth")),
    ):
        status, out, err = await command("connections", "--url", endpoint.url, *options)
        assert (status, err) == (0, "")
        assert all(text in out for text in shown), out
    _, out, _ = await command("connections", "--url", endpoint.url, "--json")
    assert json.loads(out) == subject.connections


async def test_no_connection_is_said_in_words(endpoint: HttpEndpoint, subject: Subject) -> None:
    """A bridge without connections has no empty table."""
    subject.connections = []
    assert await command("connections", "--url", endpoint.url) == (0, "no open connection\n", "")


@pytest.mark.parametrize("name", ["status", "connections"])
async def test_no_bridge_there_is_said(subject: Subject, name: str) -> None:
    """Where nothing listens, the command fails with the address and what to look at."""
    async with subject.endpoint() as endpoint:
        url = endpoint.url
    status, out, err = await command(name, "--url", url)
    assert (status, out) == (1, "")
    assert err.startswith(f"binance-bridge: no bridge answers at {url}/{name}: ")
    assert "--url" in err


async def test_something_else_there_is_said(endpoint: HttpEndpoint) -> None:
    """Where something answers that is no bridge's endpoint, the command says so."""
    status, _, err = await command("status", "--url", f"{endpoint.url}/somewhere")
    assert status == 1
    assert "answers 404; is it a bridge's HTTP endpoint?" in err
