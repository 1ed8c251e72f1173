"""The page as axe-core judges it: names and roles for all that can be worked, contrast, order, in every state."""

from typing import Any

import pytest
from browsing import drag, fill, open_picture_in, visited

pytestmark = pytest.mark.slow
axe = pytest.importorskip("axe_playwright_python.sync_playwright")


def faults(page: Any) -> list[str]:
    """Each rule that is broken, and where."""
    found = axe.Axe().run(page).response["violations"]
    return [f"{rule['id']}: {node['target']} {node['failureSummary']}" for rule in found for node in rule["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_no_rule_is_broken_in_any_state(browser: Any, address: str, size: str, scheme: str) -> None:
    for page in visited(browser, address, size, color_scheme=scheme, reduced_motion="reduce"):
        assert faults(page) == [], "before a picture is open"
        open_picture_in(page)
        drag(page, (0.4, 0.45), (0.6, 0.5))
        assert faults(page) == [], "with a hole"
        fill(page, 2)
        assert faults(page) == [], "with fills"
        page.locator(".tile", has_text="Uncertainty").click()
        page.locator("#save-button").click()
        assert faults(page) == [], "with the heat map and an open menu"
        page.goto(f"{address}/docs")
        page.locator("article").first.wait_for()
        assert faults(page) == [], "where the API is told of"
