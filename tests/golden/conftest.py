"""Says once where the golden arrays come from; without them the parametrised tests skip."""

import pytest
from load import golden_dir


def pytest_report_header(config: pytest.Config) -> str:
    folder = golden_dir()
    return f"golden arrays: {folder}" if folder.is_dir() else f"golden arrays: none in {folder}, those tests skip"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if golden_dir().is_dir():
        return
    reason = f"no golden arrays in {golden_dir()}: set VISREP_GOLDEN_DIR to their folder"
    for item in items:
        if "NOTSET" in item.name:  # pytest's name for an empty parameter set
            item.own_markers = [mark for mark in item.own_markers if mark.name != "skip"]
            item.add_marker(pytest.mark.skip(reason=reason))
