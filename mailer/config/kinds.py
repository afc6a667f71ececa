"""The base class of the configuration model, and types that many keys share."""

from typing import Annotated

import msgspec

from mailer.config.units import Seconds

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Limit = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
"""A number of messages; 0 means no limit."""
Name = Annotated[str, msgspec.Meta(min_length=1)]
Some = Annotated[Seconds, msgspec.Meta(gt=0)]
"""A duration that is not zero."""


class Group(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base class of each object in the configuration; its attributes are camelCase keys there."""
