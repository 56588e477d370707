"""What is generated from the settings models is up to date."""

import json
from pathlib import Path

import pytest

from service.settings import Settings
from service.settings_docs import written

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", list(written()))
def test_a_generated_file_says_what_the_settings_are(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == written()[name], "run `make docs`"


def test_the_shipped_settings_are_the_defaults() -> None:
    shipped = Settings.load(ROOT / "config.json").model_dump(exclude={"schema_"})

    assert shipped == Settings.model_construct().model_dump(exclude={"schema_"})


def test_the_schema_knows_every_section_and_no_other_key() -> None:
    schema = json.loads((ROOT / "config.schema.json").read_text(encoding="utf-8"))

    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {"$schema", "trading", "llm", "database", "service"}
