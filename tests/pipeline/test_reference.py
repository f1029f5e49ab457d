import pytest

from pipeline.reference import PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.file.stem)
def test_a_reference_page_is_fresh(page):
    assert page.file.read_text(encoding="utf-8") == page.text(), "run: python -m pipeline.reference"
