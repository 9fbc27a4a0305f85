"""How to reach Kafka: what fits together, and that no credential shows."""

import logging

import pytest
from pydantic import SecretStr

from bridge.errors import ConfigError
from bridge.kafka.settings import KafkaSettings

PASSWORD = "tr0ub4dor&3"
SASL = {
    "bootstrap_servers": "a:1, b:2",
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "SCRAM-SHA-512",
    "sasl_username": "bridge",
    "sasl_password": SecretStr(PASSWORD),
}


def test_both_clients_get_the_same():
    """Servers, user and password reach either client."""
    settings = KafkaSettings(**SASL)
    assert settings.servers == ["a:1", "b:2"]
    assert settings.aiokafka_options()["sasl_plain_password"] == PASSWORD
    assert settings.librdkafka_options()["sasl.password"] == PASSWORD
    assert settings.librdkafka_options()["bootstrap.servers"] == "a:1,b:2"


def test_a_password_file_is_read_each_time(tmp_path):
    """A rotated password is found without a restart; the line's end is no part of it."""
    file = tmp_path / "password"
    settings = KafkaSettings(**{**SASL, "sasl_password": file})
    with pytest.raises(ConfigError, match=r"sasl_password_file .*password: No such file"):
        settings.password()
    for word in ("one", "two"):
        file.write_text(f"{word}\n")
        assert settings.password() == word


@pytest.mark.parametrize(
    "settings",
    [KafkaSettings(**SASL), KafkaSettings(**{**SASL, "sasl_password": lambda: PASSWORD})],
    ids=["text", "function"],
)
def test_no_password_shows(settings):
    """Neither repr nor str of the settings holds the password."""
    assert PASSWORD not in repr(settings) + str(settings)


def test_requests_are_never_logged(caplog):
    """The DEBUG lines of aiokafka, which hold the bytes of a login, are dropped; others pass."""
    # Its own level: another test may have set that of "aiokafka".
    with caplog.at_level(logging.DEBUG, logger="aiokafka.conn"):
        logging.getLogger("aiokafka.conn").debug("Request: %s", PASSWORD)
        logging.getLogger("aiokafka.conn").info("Authenticated")
    assert [record.getMessage() for record in caplog.records] == ["Authenticated"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bootstrap_servers": " "}, "kafka.bootstrap_servers is empty"),
        ({"security_protocol": "TLS"}, "kafka.security_protocol is 'TLS'"),
        ({"sasl_mechanism": None}, "kafka.sasl_mechanism is None"),
        ({"sasl_mechanism": "GSSAPI"}, "kafka.sasl_mechanism is 'GSSAPI'"),
        ({"sasl_username": None}, "kafka.sasl_username is missing"),
        ({"sasl_password": None}, "kafka.sasl_password is missing"),
        ({"sasl_password": PASSWORD}, "kafka.sasl_password must be a SecretStr"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(changes, message):
    """A wrong setting is an error that names its key and holds no password."""
    with pytest.raises(ConfigError, match=message) as raised:
        KafkaSettings(**{**SASL, **changes})
    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize("key", ["ssl_cafile", "ssl_certfile"])
def test_a_certificate_file_that_is_not_there(key, tmp_path):
    """A certificate file that cannot be read is named with its key."""
    settings = KafkaSettings(**SASL, **{key: str(tmp_path / "none.pem")})
    with pytest.raises(ConfigError, match=rf"kafka\.{key} .*none\.pem.*No such file"):
        settings.aiokafka_options()
