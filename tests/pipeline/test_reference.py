from pipeline.reference import PAGE, page


def test_the_reference_page_is_fresh():
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m pipeline.reference"
