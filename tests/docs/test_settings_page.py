"""docs/settings.md says what the settings are."""

import re
from dataclasses import fields
from pathlib import Path

from function_builder.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
ROW = re.compile(r"^\| `(\w+)` \| (?:`(.*?)`)? ?\| (.*) \|$", re.MULTILINE)


def test_the_page_has_each_setting_with_its_default_and_its_words() -> None:
    rows = {name: (default, words) for name, default, words in ROW.findall(PAGE.read_text())}
    settings = {setting.metadata["variable"]: setting for setting in fields(Settings)}
    assert rows.keys() == settings.keys()
    for name, (default, words) in rows.items():
        assert settings[name].metadata["parse"](default) == settings[name].default, name
        assert settings[name].metadata["doc"] == words, name
