"""The settings of the database: defaults, mistakes, and no password shown."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from database.settings import DatabaseSettings, redacted


def test_the_database_is_embedded_unless_told_otherwise() -> None:
    settings = DatabaseSettings()
    assert settings.embedded
    assert settings.data_directory == Path("output/database")


@pytest.mark.parametrize("url", ["mysql://localhost/x", "tradent.db", ""])
def test_a_url_of_something_else_is_refused_with_what_was_expected(url: str) -> None:
    with pytest.raises(ValidationError, match='expected "embedded" or postgresql://'):
        DatabaseSettings(url=url)


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match="pool_sise"):
        DatabaseSettings.model_validate({"pool_sise": 3})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("embedded", "embedded"),
        ("postgresql://me:s3cret@db:5432/x", "postgresql://me:***@db:5432/x"),
        ("postgresql://me:s3@cret@db/x?sslmode=require", "postgresql://me:***@db/x?sslmode=require"),
        ("postgresql://me@db/x", "postgresql://me@db/x"),
        ("postgresql://db/x?user=me&password=s3cret", "postgresql://db/x?user=me&password=***"),
        ("postgresql://me:s3cret@/x?host=/run/pg&port=5", "postgresql://me:***@/x?host=/run/pg&port=5"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert redacted(url) == shown
    assert DatabaseSettings(url=url).redacted_url == shown


@pytest.mark.parametrize("password", ["a/b", "a#b", "a?b"])
def test_a_password_that_breaks_the_url_is_explained_and_not_repeated(password: str) -> None:
    url = f"postgresql://me:{password}@db/x"
    with pytest.raises(ValidationError, match="%40") as caught:
        DatabaseSettings(url=url)
    assert password not in str(caught.value)
    assert password not in redacted(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:a%2Fb@db:5432/x",
        "postgresql://a:5432,b:5433/x",
        "postgresql://[::1]:5432/x",
        "postgresql:///x?host=/run/pg",
        "postgresql+asyncpg://me@db/x",
    ],
)
def test_every_form_of_a_postgresql_url_is_taken(url: str) -> None:
    assert not DatabaseSettings(url=url).embedded


def test_printing_the_settings_shows_no_password() -> None:
    assert "s3cret" not in repr(DatabaseSettings(url="postgresql://me:s3cret@db/x"))


def test_every_setting_is_described() -> None:
    assert [name for name, field in DatabaseSettings.model_fields.items() if not field.description] == []
