"""What all settings have in common, wherever they are declared: strict models, secrets by name, addresses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

NAME_WANTED = "a secret is the name of a variable: {env: NAME}"


class MissingSecret(LookupError):
    """A variable that should hold a secret is not set."""


def address_parts(address: str) -> SplitResult:
    """Return the parts of an address, all empty where it can't be read."""
    try:
        return urlsplit(address)
    except ValueError:  # its message repeats the address
        return SplitResult("", "", "", "", "")


def is_web_address(address: SplitResult) -> bool:
    """Say whether it is one of http or https, without a user or a password, whose host and port there can be."""
    try:
        host, _ = (address.hostname or "").encode("idna"), address.port
    except ValueError:  # a label that is empty or too long, a port beyond 65535
        return False
    readable = bool(host) and address.netloc.isprintable() and " " not in address.netloc and "@" not in address.netloc
    return readable and address.scheme in ("http", "https")


def _web_address(given: str) -> str:
    if not is_web_address(address_parts(given)):
        raise PydanticCustomError("address", "must be like https://host, without a user or a password")
    return given.rstrip("/")


def _part_of_a_key(given: str) -> str:
    # it becomes a part of an asset's key
    if not re.fullmatch(r"[A-Za-z0-9_]+", given):
        raise PydanticCustomError("source_name", "must hold letters, digits and underscores only")
    return given


def slug(name: str) -> str:
    """Return a name in small letters and digits, everything else an underscore."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


WebAddress = Annotated[str, AfterValidator(_web_address)]
Name = Annotated[str, Field(min_length=1)]
KeyPart = Annotated[str, AfterValidator(_part_of_a_key)]


class Settings(BaseModel):
    """What every part of an environment has in common: unknown keys are refused, nothing changes later."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, data: Any) -> Any:
        # In YAML a key whose lines are all commented out has the value null.
        if not isinstance(data, dict):
            return data
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {key: value for key, value in data.items() if value is not None or key not in known}


class Secret(BaseModel):
    """The name of the variable that holds a secret; the secret itself is never here."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    env: str = Field(description="the variable's name, in capitals")

    @model_validator(mode="before")
    @classmethod
    def _only_a_name(cls, data: Any) -> Any:
        if isinstance(data, Secret):
            return data
        name = data.get("env") if isinstance(data, dict) and len(data) == 1 else None
        if not isinstance(name, str) or not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
            raise PydanticCustomError("secret", NAME_WANTED)
        return data

    def value(self, environ: Mapping[str, str]) -> str:
        """Return the secret.

        Raises:
            MissingSecret: the variable isn't set, or is empty.
        """
        value = environ.get(self.env)
        if not value:
            raise MissingSecret(f"the variable {self.env} is not set")
        return value
