"""Whether a database can be used at all, before anything in it is changed."""

from sqlalchemy import Connection, inspect, text

from database.tables import metadata
from trading.errors import StorageError

OLDEST = 15
_LOOK = text(
    "SELECT current_setting('server_version_num')::int, current_setting('server_version'),"
    " current_setting('server_encoding')"
)


def require_fit(connection: Connection) -> None:
    """Raise StorageError where the server is too old, or the database cannot hold every character."""
    number, version, encoding = connection.execute(_LOOK).one()
    if number < OLDEST * 10_000:
        raise StorageError(
            f"the server is PostgreSQL {version}, and {OLDEST} or newer is needed; update it, or set database.url to "
            '"embedded"'
        )
    if encoding != "UTF8":
        raise StorageError(
            f"the database's encoding is {encoding}, which does not hold every character; make one with "
            "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0 and name it in database.url"
        )


def require_empty(connection: Connection) -> None:
    """Raise StorageError where tables of our names are there that this program did not make."""
    foreign = sorted(set(inspect(connection).get_table_names()) & set(metadata.tables))
    if foreign:
        raise StorageError(
            f"the database has tables that are called like ours and are not ({', '.join(foreign[:5])}); "
            "name another database in database.url"
        )
