"""What counts as nobody, wherever people are told apart by an id."""

# What broken code sends for "nobody". Heap would merge all of them into one person, for good.
PLACEHOLDERS = frozenset(
    [
        *("undefined", "null", "none", "nil", "nan", "n/a", "na", "(not set)", "[object object]", "[]", "{}"),
        *("0", "-1", "true", "false", "user", "unknown", "anonymous", "guest"),
        "00000000-0000-0000-0000-000000000000",
    ]
)
