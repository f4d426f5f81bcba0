"""Columns of texts get the codes that the definition gives each text alone."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.text import MAX_TEXT_TOKENS, codes_of_text
from model.text_arrays import text_codes

FILLING = ["tea", "竹笛", None, ""] * 8
"""More texts than are still taken one by one."""


def one_by_one(texts: list[str | None]) -> npt.NDArray[np.int32]:
    lists = [codes_of_text(text) for text in texts]
    out = np.zeros((len(lists), max(1, *map(len, lists))), np.int32)
    for row, codes in zip(out, lists, strict=True):
        row[: len(codes)] = codes
    return out


LETTERS = st.sampled_from(
    "aabcdzzAZ09  _-<>=\n竹笛子手工はがかカｶﾞ゛゙가각ᆨéÉ́İΣςß①½㎏ﬁ—。￥🎋👍🏽\u200d\ufe0f\U0001f1e8"
)
WORDS = st.lists(
    st.sampled_from(["tea", "tea", "Bamboo", "flutes", "手工", "竹笛", "a", "é", "embroidery-hoop"])
)


@settings(deadline=None)  # the tables of characters are made at the first call
@given(texts=st.lists(st.none() | st.text() | st.text(LETTERS) | WORDS.map(" ".join)))
# Past the slots that are looked at: repeats alone, and different words after many repeats.
@example(texts=["tea " * 200, "a b c d e f g " * 40, "tea " * 80 + "bamboo flutes made by hand"])
@example(texts=["竹" * 300, "竹笛" * 40 + "手工", "x" * 14, "x" * 15, "x" * 16, "x" * 400])
@example(texts=["a\nb", "\n", "\n\nab cd\n", "tea\r\ntea"])
@example(
    texts=[
        "か\u3099",
        "か゛",
        "ｶﾞ",
        "각",
        "가\u11a8",
        "e\u0301te",
        "Σας ΟΔΟΣ",
        "\U0001f1e8\U0001f1f3",
    ]
)
def test_many_texts_have_the_codes_of_each_alone(texts: list[str | None]) -> None:
    texts = texts + FILLING
    np.testing.assert_array_equal(text_codes(texts), one_by_one(texts))


def test_every_character_is_taken_as_the_definition_takes_it() -> None:
    points = [chr(c) for c in range(0x20010) if not 0xD800 <= c < 0xE000]
    # Between letters that it may join, compose with or part.
    for around in ("{}", "か{}e{}가"):
        texts: list[str | None] = [around.replace("{}", point) for point in points]
        np.testing.assert_array_equal(text_codes(texts), one_by_one(texts))


@pytest.mark.parametrize("num", [0, 1, 16, 17, 5000])
def test_any_number_of_texts(num: int) -> None:
    texts: list[str | None] = [f"Bamboo flute no {i} 竹笛 {i}" for i in range(num)]
    codes = text_codes(texts)
    assert codes.dtype == np.int32 and codes.shape[0] == num and codes.flags.c_contiguous
    if num:
        np.testing.assert_array_equal(codes, one_by_one(texts))
    else:
        assert codes.shape == (0, 1)


def test_a_text_has_at_most_so_many_codes() -> None:
    texts: list[str | None] = [" ".join(f"word{i}" for i in range(99))] * 20
    assert text_codes(texts).shape == (20, MAX_TEXT_TOKENS)
