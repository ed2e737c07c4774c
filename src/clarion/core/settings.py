"""Settings of the process, from the environment (`CLARION_*`). `clarion settings` prints this list."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from clarion.core.errors import UsageInvalid

DEFAULT_ENVIRONMENT = "default"
"""Egress rules are kept by this name where CLARION_ENVIRONMENT is not set."""

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def _split(value: object) -> object:
    """Comma-separated text as a list; empty text means none."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


class Settings(BaseSettings):
    """One value per `CLARION_*` variable. Lists are comma-separated, empty means none."""

    model_config = SettingsConfigDict(env_prefix="CLARION_", frozen=True, extra="ignore")

    database_url: SecretStr | None = Field(
        None, description="PostgreSQL 15 or newer to use; without it an embedded server runs in the data directory"
    )
    data_dir: Path = Field(Path(".clarion"), description="Directory of the embedded server and of the encryption key")
    listen: str = Field("127.0.0.1:8400", description="host:port of the API")
    bootstrap_api_key: SecretStr | None = Field(
        None,
        description="At least 32 characters; makes organisation `default` and its administrator `bootstrap` at start",
    )
    allowed_networks: Annotated[tuple[Network, ...], NoDecode] = Field(
        (), description="Networks (CIDR) that receivers may live in although policy forbids them, on any port"
    )
    ca_file: Path | None = Field(
        None, description="Extra certificate authorities (PEM) that receivers' certificates may come from"
    )
    secret_key_file: Path | None = Field(
        None, description="Key-encryption key, 32 bytes in base64; default `secret.key` in the data directory"
    )
    environment: str | None = Field(
        None,
        description="Which environment of the environments file this deployment is; its egress rules are kept by this name",
    )
    environments_file: Path | None = Field(
        None, description="TOML file with the environments, their application URLs and their egress addresses"
    )
    source_addresses: Annotated[tuple[Address, ...], NoDecode] = Field(
        (), description="Local addresses that requests leave from; default: the environment's egress addresses"
    )
    source_addresses_translated: bool = Field(
        default=False,
        description="The egress addresses belong to a NAT behind this host: only CLARION_SOURCE_ADDRESSES are bound",
    )
    egress_proxy: SecretStr | None = Field(
        None, description="HTTP proxy that requests go through by CONNECT: http://[user:password@]host:port"
    )
    connections_per_host: int = Field(
        64, ge=1, le=65536, description="Connections to one host at most, of all receivers together, in each process"
    )
    api_points_per_second: int = Field(
        1000, ge=1, le=1_000_000, description="Cost points that a client of the API gets back each second"
    )
    api_points_burst: int = Field(
        5000, ge=1, le=10_000_000, description="Cost points that a client of the API can use at once"
    )
    api_url: str | None = Field(
        None, description="Where commands such as `clarion receivers` find the API; default: http:// and CLARION_LISTEN"
    )
    api_key: SecretStr | None = Field(
        None, description="API key of those commands; `--key-file` names a file that holds one instead"
    )
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR; logs go to stderr")

    @field_validator(
        "database_url",
        "bootstrap_api_key",
        "ca_file",
        "secret_key_file",
        "environment",
        "environments_file",
        "egress_proxy",
        "api_url",
        "api_key",
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("allowed_networks", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        parts = _split(value)
        return tuple(ip_network(part) for part in parts) if isinstance(parts, list) else parts

    @field_validator("source_addresses", mode="before")
    @classmethod
    def _addresses(cls, value: object) -> object:
        parts = _split(value)
        return tuple(ip_address(part) for part in parts) if isinstance(parts, list) else parts

    @field_validator("bootstrap_api_key")
    @classmethod
    def _key_is_long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 32:
            raise ValueError("must have at least 32 characters")
        return value

    @field_validator("listen")
    @classmethod
    def _listen_is_address(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError("must be host:port, for example 127.0.0.1:8400")
        return value

    @field_validator("log_level")
    @classmethod
    def _level_is_known(cls, value: str) -> str:
        if value.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
            raise ValueError("must be DEBUG, INFO, WARNING or ERROR")
        return value.upper()

    @property
    def listen_host(self) -> str:
        """The host part of `listen`, without the brackets of an IPv6 literal."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def listen_port(self) -> int:
        """The port part of `listen`; 0 lets the system choose."""
        return int(self.listen.rpartition(":")[2])

    @property
    def api_base_url(self) -> str:
        """Where the API is: `api_url`, or where a `serve` with these settings can be reached from this host."""
        if self.api_url is not None:
            return self.api_url
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.listen_host, self.listen_host)  # noqa: S104 - not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self.listen_port}"

    @property
    def environment_name(self) -> str:
        """The name that egress rules are kept by."""
        return self.environment or DEFAULT_ENVIRONMENT

    @property
    def secret_key_path(self) -> Path:
        """Where the key-encryption key is expected."""
        return self.secret_key_file or self.data_dir / "secret.key"


def load_settings() -> Settings:
    """The settings of this process. Raises UsageInvalid naming the variable and what is wrong with it."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "CLARION_" + "_".join(str(part) for part in first["loc"]).upper()
        reason = first["msg"].removeprefix("Value error, ")
        raise UsageInvalid(f"{name}: {reason}", "`clarion settings` lists the settings and their meaning") from error
