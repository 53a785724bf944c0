"""Views: the same as text and as HTML, and nothing in a name is taken for HTML."""

from PIL import Image

from labkit.lab.views import Lines, Several
from labkit.ledger.table import Picture, Table


def test_lines_have_a_mark():
    view = Lines("<claim>", ["one"], mark="passed")
    assert repr(view) == "[passed] <claim>\n  one"
    assert "&lt;claim&gt;" in view._repr_html_()


def test_a_table_puts_numbers_to_the_right():
    view = Table("title", ["name", "peak"], [["a<b", "1.0"], ["cc", "-"]], ["note"])
    assert view.text().splitlines() == ["title", "name  peak", "a<b    1.0", "cc       -", "note"]
    html = view.html()
    assert "a&lt;b" in html
    assert html.count("text-align:right") == 3
    assert html.count("text-align:right;padding:2px 5px;white-space:nowrap") == 3  # a sign is not torn off
    names = Table("t", ["name"], [["max_steps=2 accumulate_grad_batches=2"]]).html()
    assert "max_steps=2 accumulate_<wbr>grad_<wbr>batches=2" in names  # a long one leaves room for the others
    assert 'aria-label="title"' in html


def test_a_table_without_rows_is_one():
    assert Table("title", ["a", "b"], []).text() == "title\na  b"
    assert "<thead>" in Table("title", ["a", "b"], []).html()


def test_a_picture_is_an_image_with_words(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "x.png")
    cell = Picture(tmp_path / "x.png", 'an "apple"')
    table = Table("t", ["image"], [[cell]])
    assert "x.png" in table.text()
    assert 'alt="an &quot;apple&quot;"' in table.html()
    assert "data:image/png;base64," in table.html()


def test_several_are_one_below_the_other():
    assert Several([Lines("a"), Lines("b")]).text() == "a\nb"
    assert Several([]).html() == ""
