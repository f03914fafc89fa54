"""docs/runbook.md has a section for each alert, and each alert leads to it."""

import re
from pathlib import Path

import pytest

from tests.chart.monitoring.queries import alerts
from tests.docs.test_documents import anchors

PAGE = Path(__file__).parents[2] / "docs" / "runbook.md"
_SECTION = re.compile(r"^## (FunctionBuilder\w+)\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
SECTIONS = dict(_SECTION.findall(PAGE.read_text()))


def test_there_is_a_section_for_each_alert_in_their_order():
    assert list(SECTIONS) == [alert["alert"] for alert in alerts()]


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_each_alert_leads_to_its_section(alert):
    address, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert address.endswith("/docs/runbook.md")
    assert anchor == alert["alert"].lower()
    assert anchor in anchors(PAGE)


@pytest.mark.parametrize("name", SECTIONS)
def test_each_section_says_what_it_means_and_what_to_do(name):
    parts = re.findall(r"^\*\*(.+?)\*\*", SECTIONS[name], re.MULTILINE)
    assert parts == ["Meaning.", "Causes.", "Look at", "Do."]
