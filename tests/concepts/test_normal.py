"""The normal form: what it makes one, what it keeps apart, and where in the text each piece was."""

import pytest

from pipeline.concepts.normal import Gap, normal, pieces

ONE = [  # writings that are one
    ("AK-47", "AK47", "ak 47", "Ak_47", "AK\u201147", "AK–47", "AK\u221247", "ＡＫ－４７", "AK\u00a047", "ak-٤٧"),
    ("cat", "Cat", "CAT", "ｃａｔ", "𝐜𝐚𝐭", "ⓒⓐⓣ", "c\u00adat", "c\u200ba\u200ct", "\ufeffcat", "c̶a̶t̶"),
    ("café", "cafe\u0301", "CAFÉ", "CAFE\u0301"),
    ("Munch's", "munch’s", "Munch`s", "Munchʼs", "Munch\u2032s"),
    ("straße", "STRASSE"),
    ("σκύλος", "ΣΚΎΛΟΣ", "σκύλοσ"),
    ("кот", "КОТ"),
    ("İstanbul", "istanbul", "ISTANBUL", "ıstanbul"),
    ("ネコ", "ﾈｺ"),
    ("ガン", "ｶﾞﾝ"),
    ("ヴァン・ゴッホ", "ヴァンゴッホ", "ヴァン･ゴッホ"),
    ("고양이", "\u1100\u1169\u110b\u1163\u11bc\u110b\u1175"),
    ("قطة", "قِطَّة", "قـطة"),
    ("חתול", "חָתוּל"),
    ("ﬁre", "fire"),
    ("🐱", "🐱\ufe0f"),
    ("hot dog", "hot-dog", "Hot_Dog", " hot \n dog ", "hot\u3000dog", "hot\x00dog"),
]
APART = [  # writings that are not
    ("rosé", "rose"),
    ("hotdog", "hot dog"),
    ("47", "470"),
    ("C++", "C"),
    ("a.b", "a b"),
    ("🐱", "🐈"),
    ("猫", "猫咪"),
    ("cat's", "cats"),
]


@pytest.mark.parametrize("writings", ONE, ids=lambda writings: writings[0])
def test_writings_of_one_word_are_one(writings):
    assert {normal(writing) for writing in writings} == {normal(writings[0])}


@pytest.mark.parametrize(("one", "other"), APART)
def test_other_words_stay_apart(one, other):
    assert normal(one) != normal(other)


@pytest.mark.parametrize("writings", [*ONE, *APART], ids=lambda writings: writings[0])
def test_the_normal_form_of_the_normal_form_is_itself(writings):
    for writing in writings:
        assert normal(normal(writing)) == normal(writing)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1girl, cat_ears", ["1", "girl", ",", "_cat", "_ears"]),
        ("photo_of_a_cat2", ["photo", "_of", "_a", "_cat", "2"]),
        ("一只cat", ["一", "只", "cat"]),
        ("แมวบน", ["แ", "ม", "ว", "บ", "น"]),
        ("น้ำ", ["น้", "ำ"]),
        ("cafe\u0301s", ["cafe\u0301s"]),
        ("wild\u00adcat", ["wild", "~cat"]),
        ("🐈\u200d⬛", ["🐈", "~⬛"]),
        ("1947", ["1947"]),
        ("ﬁre", ["ﬁre"]),
        ("", []),
        (" - _ \u200b", []),
        ("\u0301cat", ["cat"]),
        ("①②", ["①②"]),
    ],
)
def test_pieces_lie_where_they_were_in_the_text(text, expected):
    """With ``_`` before a piece for a joint, ``~`` for a soft gap; before the first stands nothing."""
    marks = {Gap.none: "", Gap.soft: "~", Gap.joint: "_"}
    found = pieces(text)
    assert [
        (marks[piece.gap] if piece is not found[0] else "") + text[piece.start : piece.stop] for piece in found
    ] == expected
