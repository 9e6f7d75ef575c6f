from __future__ import annotations

from pathlib import Path

import pytest

from tailrace.backends.settings import Settings, load_settings
from tailrace.errors import ConfigError

TLS = {"kafka_security": "SASL_SSL", "kafka_username": "me", "kafka_password": "secret"}


@pytest.mark.parametrize(
    ("values", "finding"),
    [
        ({"kafka_username": "me"}, "TAILRACE_KAFKA_USERNAME has no effect with KAFKA_SECURITY=PLAINTEXT"),
        ({"kafka_security": "SASL_SSL"}, "KAFKA_SECURITY=SASL_SSL needs KAFKA_USERNAME and KAFKA_PASSWORD"),
        ({"kafka_ca": __file__}, "TAILRACE_KAFKA_CA has no effect with KAFKA_SECURITY=PLAINTEXT"),
        (TLS | {"kafka_ca": "/not/there.pem"}, "TAILRACE_KAFKA_CA: there is no file /not/there.pem"),
        ({"kafka_security": "TLS"}, "TAILRACE_KAFKA_SECURITY: Input should be"),
        ({"redis_ca": __file__}, "TAILRACE_REDIS_CA has no effect with redis://"),
        ({"redis_username": "me"}, "TAILRACE_REDIS_USERNAME needs REDIS_PASSWORD"),
        ({"redis_url": "redis://:a@host", "redis_password": "b"}, "TAILRACE_REDIS_PASSWORD has no effect"),
    ],
)
def test_credentials_without_effect_are_refused(values: dict[str, str], finding: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings(**values)
    assert finding in str(refused.value)


def test_all_findings_come_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings(kafka_username="me", redis_username="me")
    assert len(str(refused.value).splitlines()) == 3


def test_full_credentials_are_taken_and_stay_out_of_sight(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.touch()
    settings = Settings(  # type: ignore[arg-type]  # values are validated by pydantic
        **TLS, kafka_ca=str(authority), redis_url="rediss://me:hidden@host:6380/0", redis_ca=str(authority)
    )
    assert "secret" not in repr(settings)
    assert "hidden" not in repr(settings)
