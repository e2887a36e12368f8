"""What an environment's YAML may say of segments and profiles on their way to destinations."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator
from pydantic_core import PydanticCustomError

from heap_integration.settings import Name, Settings, slug

CADENCES = {
    "15 minutes": "*/15 * * * *",
    "30 minutes": "*/30 * * * *",
    "hourly": "0 * * * *",
    "daily": "0 0 * * *",
}
DEFINITION_ENDINGS = (".json", ".yaml", ".yml")
FROM_HEAP = "heap"

Cadence = Literal["15 minutes", "30 minutes", "hourly", "daily"]
Mode = Literal["mirror", "add_only", "update_only", "drain"]


def _segment_source(given: str) -> str:
    if given != FROM_HEAP and not given.endswith(DEFINITION_ENDINGS):
        raise PydanticCustomError(
            "segment_source",
            "must be heap, a file with an audience's definition (audiences/name.json or .yaml), "
            "or {table: schema.table, identity: column}",
        )
    return given


class MembersTable(Settings):
    """A table, view or dbt model of the warehouse whose rows are members, by the column that holds their identity."""

    table: Name
    identity: Name


class HeapProperty(Settings):
    """A user property in Heap, whose value is the destination's id of somebody."""

    property: Name


class MappingTable(Settings):
    """A table that says which id of the destination (``to``) belongs to which identity (``from``)."""

    table: Name
    source: Name = Field(alias="from")
    target: Name = Field(alias="to")


class Guards(Settings):
    """What stops a sync before it sends anything, until somebody confirms it.

    ``largest_removal_percent`` counts against those who are there, and only from ``removals_to_guard`` removals
    on; the two caps are absolute numbers of changes in one run.
    """

    empty_source: Literal["stop", "allow"] = "stop"
    largest_removal_percent: float = Field(default=50, ge=0, le=100)
    removals_to_guard: int = Field(default=10, ge=1)
    largest_removal: int | None = Field(default=None, ge=0)
    largest_addition: int | None = Field(default=None, ge=0)


def _kind(given: Any) -> str:
    if isinstance(given, str):
        return "text"
    is_table = isinstance(given, MappingTable) or (isinstance(given, dict) and "table" in given)
    return "by table" if is_table else "by property"


SegmentSource = Annotated[
    Annotated[str, AfterValidator(_segment_source), Tag("text")] | Annotated[MembersTable, Tag("members of a table")],
    Discriminator(lambda given: "text" if isinstance(given, str) else "members of a table"),
]
MapUsersBy = Annotated[
    Annotated[Literal["identity", "email"], Tag("text")]
    | Annotated[HeapProperty, Tag("by property")]
    | Annotated[MappingTable, Tag("by table")],
    Discriminator(_kind),
]


class SyncSettings(Settings):
    """What a segment and a set of profiles on their way to destinations have in common.

    ``key`` names the sync where it is kept; while it stays, ``name`` may change. ``mode``: mirror adds and
    removes; add_only never removes; update_only is a mirror that never creates anybody at the destination; drain takes
    out all that the hub has put there. ``create`` lets the destination make users it doesn't know.
    ``smallest_match_rate`` is the share of members, from 0 to 1, that the destination should know.
    """

    name: Name
    key: str = ""
    map_users_by: MapUsersBy = "identity"
    sync_to: tuple[str, ...] = Field(min_length=1)
    every: Cadence = "hourly"
    enabled: bool = True
    mode: Mode = "mirror"
    create: bool = False
    guards: Guards = Guards()
    smallest_match_rate: float = Field(default=0.5, ge=0, le=1)

    @property
    def slug(self) -> str:
        """The key, else the name, in small letters and digits, everything else an underscore."""
        return slug(self.key or self.name)

    @property
    def cron(self) -> str:
        """How often it is brought up to date, in cron's words."""
        return CADENCES[self.every]

    @property
    def creates(self) -> bool:
        """Whether users may be made whom the destination doesn't know."""
        return self.create and self.mode != "update_only"


class SegmentSync(SyncSettings):
    """A segment and the destinations that follow it.

    ``source`` is ``heap`` (then ``name`` is Heap's unless ``segment_id`` is given), the file of an audience's
    definition, or a table. ``removes``: own leaves alone who was in the destination's audience before the hub
    put anybody there.
    """

    source: SegmentSource = Field(alias="from")
    segment_id: int | None = None
    removes: Literal["own", "all"] = "own"

    @property
    def kind(self) -> Literal["heap", "audience", "table"]:
        """Where the members come from."""
        if isinstance(self.source, MembersTable):
            return "table"
        return "heap" if self.source == FROM_HEAP else "audience"


class ProfileField(Settings):
    """One column on its way: the attribute's name there, its type, and what becomes of null.

    ``operation``: set; set_once (never overwrites); add (the number's growth since it was last acknowledged);
    append (a list whose entries enter and leave one by one). ``when_null``: skip leaves the attribute alone,
    clear removes it, send writes null.
    """

    to: Name
    type: Literal["text", "number", "boolean", "datetime", "list"] | None = None
    operation: Literal["set", "set_once", "add", "append"] = "set"
    when_null: Literal["skip", "clear", "send"] = "skip"


class ProfileSync(SyncSettings):
    """Properties of users or accounts on their way to destinations: rows of a table, one an identity.

    ``fields`` maps columns to attributes; without it every other column goes under its own name.
    """

    of: Literal["users", "accounts"] = "users"
    table: Name
    identity: Name
    fields: dict[Name, ProfileField] = Field(default_factory=dict)

    @field_validator("fields", mode="before")
    @classmethod
    def _short_form(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {column: {"to": to} if isinstance(to, str) else to for column, to in given.items()}
