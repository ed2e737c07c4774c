"""Where a database is, in the spellings that libpq, SQLAlchemy and a reader need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, urlencode

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from clarion.core.errors import UsageInvalid

if TYPE_CHECKING:
    import sqlalchemy


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """A libpq address, as a URI (`postgresql://user@/db?host=/sock`). `repr` and `str` never show the password.

    Raises UsageInvalid when the text is no address that libpq understands.
    """

    url: str

    def __post_init__(self) -> None:
        if not self.url.startswith(("postgresql://", "postgres://")):
            raise UsageInvalid(
                "CLARION_DATABASE_URL: must start with postgresql://",
                "for example postgresql://user:password@host:5432/database",
            )
        try:
            self._parts()
        except ProgrammingError as error:
            # libpq repeats the whole address, password included: its text is not shown.
            raise UsageInvalid(
                "CLARION_DATABASE_URL: not an address that PostgreSQL's client library understands",
                "for example postgresql://user:password@host:5432/database; escape special characters as %XX",
            ) from error.with_traceback(None)

    @classmethod
    def of_socket(cls, directory: str, user: str, database: str) -> DatabaseAddress:
        """The address of `database` behind the Unix socket in `directory`."""
        # The port is named so that PGPORT in the caller's environment does not count.
        query = urlencode({"host": directory, "port": "5432"}, quote_via=quote)
        return cls(f"postgresql://{quote(user, safe='')}@/{quote(database, safe='')}?{query}")

    @property
    def database(self) -> str | None:
        """The database's name; None means the user's name, as libpq has it."""
        return self._parts().get("dbname")

    def with_database(self, database: str) -> DatabaseAddress:
        """The same server and user, another database."""
        return _from_parts({**self._parts(), "dbname": database})

    def with_user(self, user: str, password: str | None = None) -> DatabaseAddress:
        """The same server and database, another login."""
        parts = {**self._parts(), "user": user}
        parts.pop("password", None)
        return _from_parts(parts | ({"password": password} if password else {}))

    def conninfo(self, **options: str) -> str:
        """A libpq connection string with `options` added (`connect_timeout="5"`)."""
        return make_conninfo(self.url, **options)

    def sqlalchemy(self, driver: Literal["asyncpg", "psycopg"]) -> sqlalchemy.URL:
        """The same address for `sqlalchemy.create_engine`."""
        import sqlalchemy

        parts = self._parts()
        host = parts.pop("host", None)
        port = parts.pop("port", None)
        url = sqlalchemy.URL.create(
            f"postgresql+{driver}",
            username=parts.pop("user", None),
            password=parts.pop("password", None),
            database=parts.pop("dbname", None),
        )
        query = {"host": host} if host else {}
        if port:
            query["port"] = port
        if driver == "asyncpg":
            # asyncpg takes these libpq options under other names; the rest it reads from the environment.
            sslmode = parts.pop("sslmode", None)
            parts = {"ssl": sslmode} if sslmode else {}
        return url.update_query_dict(query | parts)

    def display(self) -> str:
        """Host, port and database for messages; never the password."""
        parts = self._parts()
        host = parts.get("host", "the local socket")
        port = parts.get("port", "5432")
        where = host if host.startswith("/") else f"{host}:{port}"
        return f"{where}, database {parts.get('dbname') or parts.get('user') or 'by default'}"

    def __repr__(self) -> str:
        return f"DatabaseAddress({self.display()})"

    __str__ = __repr__

    def _parts(self) -> dict[str, str]:
        return {key: str(value) for key, value in conninfo_to_dict(self.url).items() if value is not None}


def _from_parts(parts: dict[str, str]) -> DatabaseAddress:
    rest = dict(parts)
    user = rest.pop("user", "")
    password = rest.pop("password", "")
    database = rest.pop("dbname", "")
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    query = f"?{urlencode(rest, quote_via=quote)}" if rest else ""
    return DatabaseAddress(f"postgresql://{login}{'@' if login else ''}/{quote(database, safe='')}{query}")
