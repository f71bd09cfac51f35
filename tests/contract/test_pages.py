"""Every registered objective has a page that names its settings and what differs from its sources."""

from pathlib import Path

import pytest

from visrep.objectives import OBJECTIVES

PAGES = Path(__file__).parents[2] / "docs" / "methods"


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_page(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text()
    assert f"`method={name}`" in page.splitlines()[0]
    assert "\n## What differs\n" in page and "| equation | where |" in page
    described = page
    base = {"vae_t": "vae", "ats": "atc", "ac": "atc"}.get(name)  # whose settings the page refers to
    if base is not None:
        assert f"({base}.md)" in page
        described += (PAGES / f"{base}.md").read_text()
    missing = [key for key in OBJECTIVES[name].Config.model_fields if f"`{key}`" not in described]
    assert not missing, f"docs/methods/{name}.md does not name the settings {missing}"
