"""Place, not meaning: where things are. Read once from `TAILRACE_…` in the environment, then passed down."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tailrace.errors import ConfigError


class Settings(BaseSettings):
    """Settings of every command. Each field `x` is the environment variable `TAILRACE_X`."""

    model_config = SettingsConfigDict(env_prefix="TAILRACE_", frozen=True, extra="forbid")

    kafka_bootstrap: str = Field("127.0.0.1:9092", description="Kafka brokers, host:port, comma separated.")
    kafka_security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."
    )
    kafka_username: str = Field("", description="SCRAM-SHA-512 user; empty for none.")
    kafka_password: SecretStr = Field(SecretStr(""), description="SCRAM-SHA-512 password.")
    kafka_ca: str = Field(
        "", description="Path of the PEM file with the broker's certificate authority; empty: the system's."
    )
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0", description="Online store, redis:// or rediss:// address.", repr=False
    )
    redis_username: str = Field("", description="Redis ACL user; empty for the default user.")
    redis_password: SecretStr = Field(SecretStr(""), description="Redis password; empty for none.")
    redis_ca: str = Field(
        "", description="Path of the PEM file with Redis' certificate authority; empty: the system's."
    )
    redis_timeout_ms: int = Field(250, description="Time-out of one online read or write, milliseconds.", ge=1)
    mlflow_uri: str = Field("", description="MLflow tracking address; empty: SQLite below `state_dir`.", repr=False)
    use_cases: Path = Field(Path("feature_repo"), description="Folder with one folder per use case.")
    state_dir: Path = Field(
        Path("~/.local/state/tailrace/default").expanduser(), description="Folder for data sets, bundles and logs."
    )
    partitions: int = Field(4, description="Partitions of topics that Tailrace creates.", ge=1)
    replication: int = Field(1, description="Replication factor of topics that Tailrace creates.", ge=1)
    instance: str = Field("0", description="Name of this worker within its service; static group member id.")
    metrics_host: str = Field(
        "127.0.0.1", description="Address of /livez, /readyz and /metrics; 0.0.0.0 in a container."
    )
    metrics_port: int = Field(0, description="Port of /livez, /readyz and /metrics; 0 picks a free one.")
    ops_host: str = Field(
        "127.0.0.1", description="Address the admin API listens on; others than loopback need tokens."
    )
    ops_port: int = Field(8800, description="Port of the admin API and the console; 0 picks a free one.")
    ops_tokens: SecretStr = Field(
        SecretStr(""),
        description="Who may use the admin API: `name:token`, comma separated; empty on loopback: a local token.",
    )
    ops_url: str = Field("", description="Admin API that commands use; empty: the one on this machine.")
    ops_token: SecretStr = Field(SecretStr(""), description="Token that commands use; empty: the local one.")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")
    log_json: bool = Field(False, description="Logs as JSON lines instead of text.")
    feedback_workers: int = Field(
        1, description="Workers of feedback that `tailrace up` starts where a use case declares it parallel.", ge=1
    )
    threads: int = Field(2, description="Threads of model execution and of training.", ge=1)

    @model_validator(mode="after")
    def _security_has_effect(self) -> Settings:
        """Refuses credentials that would not be used; all findings at once."""
        sasl, tls = self.kafka_security.startswith("SASL_"), self.kafka_security.endswith("SSL")
        address = urlsplit(self.redis_url)
        wrong = {
            f"KAFKA_SECURITY={self.kafka_security} needs KAFKA_USERNAME and KAFKA_PASSWORD": sasl
            and not (self.kafka_username and self.kafka_password.get_secret_value()),
            f"KAFKA_USERNAME has no effect with KAFKA_SECURITY={self.kafka_security}; say SASL_SSL": self.kafka_username
            and not sasl,
            f"KAFKA_CA has no effect with KAFKA_SECURITY={self.kafka_security}; say SASL_SSL": self.kafka_ca
            and not tls,
            f"KAFKA_CA: there is no file {self.kafka_ca}": self.kafka_ca and not Path(self.kafka_ca).is_file(),
            f"REDIS_CA has no effect with {address.scheme}://; say rediss://": self.redis_ca
            and address.scheme != "rediss",
            f"REDIS_CA: there is no file {self.redis_ca}": self.redis_ca and not Path(self.redis_ca).is_file(),
            "REDIS_USERNAME needs REDIS_PASSWORD": self.redis_username and not self.redis_password.get_secret_value(),
            "REDIS_PASSWORD has no effect, REDIS_URL has one": self.redis_password.get_secret_value()
            and address.password,
        }
        findings = [f"TAILRACE_{text}" for text, is_so in wrong.items() if is_so]
        if findings:
            raise ValueError("\n  ".join(findings))
        return self


def load_settings(**overrides: object) -> Settings:
    """Reads settings from the environment.

    Raises:
        ConfigError: lists every variable that is malformed, and every `TAILRACE_` variable nobody reads.
    """
    import difflib
    import os

    known = {f"TAILRACE_{name.upper()}" for name in Settings.model_fields} | {"TAILRACE_DATA"}
    known |= {"TAILRACE_TEST_BROKER", "TAILRACE_TEST_REDIS", "TAILRACE_REQUIRE_INTEGRATION"}
    findings = []
    for name in sorted(os.environ):
        if name.startswith("TAILRACE_") and name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            findings.append(f"{name} is no setting" + (f"; did you mean {nearest[0]}?" if nearest else ""))
    try:
        settings = Settings(**overrides)  # type: ignore[arg-type]  # values are validated by pydantic
    except ValidationError as error:
        for problem in error.errors():
            place = "".join(f"TAILRACE_{str(part).upper()}: " for part in problem["loc"][:1])
            findings.append(place + problem["msg"].removeprefix("Value error, "))
        raise ConfigError("settings are wrong:\n  " + "\n  ".join(findings)) from error
    if findings:
        raise ConfigError("settings are wrong:\n  " + "\n  ".join(findings))
    return settings
