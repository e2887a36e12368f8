"""What dbt's adapter for Synapse imports of pyodbc: it compiles without a driver, which few machines have."""


class Error(Exception):
    """The driver's error."""


class DatabaseError(Error):
    """An error of the database."""


class InternalError(DatabaseError):
    """An error inside the database."""


class OperationalError(DatabaseError):
    """An error of its operation."""


class InterfaceError(Error):
    """An error of the driver itself."""


class Row:
    """A row of a result."""
