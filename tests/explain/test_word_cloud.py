"""Word scores and clouds: the table is right, and every trap of the wordcloud package ends in a right picture."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from debugnet.errors import InputError
from debugnet.explain.fonts import choose_font, missing_characters
from debugnet.explain.word_cloud import draw_word_cloud
from debugnet.explain.word_scores import WordScore, WordTally, cloud_words


def scores(words: dict[str, float], n: int = 5) -> list[WordScore]:
    return [WordScore(word, value, value, n, value - 0.1, value + 0.1) for word, value in words.items()]


def draw(words, tmp_path, side="positive", **options):
    kind = draw_word_cloud(scores(words), side, "feature 7 <b>: words", tmp_path / "cloud", **options)
    return kind, np.array(Image.open(tmp_path / "cloud.png")), (tmp_path / "cloud.svg").read_text(encoding="utf-8")


def test_means_are_over_all_texts_and_rare_words_are_left_out():
    tally = WordTally(1)
    for effect in (1.0, 2.0, 3.0):
        tally.add(["Good", "film"], np.array([[effect], [0.0]]))
    tally.add(["once"], np.array([[100.0]]))
    (table,) = tally.scores(min_count=3)
    assert [(s.word, s.n) for s in table] == [("good", 3), ("film", 3)]
    assert table[0].mean == pytest.approx(2.0)
    assert (table[0].low, table[0].high) == pytest.approx((2 - 4.302653 / np.sqrt(3), 2 + 4.302653 / np.sqrt(3)))
    (shrunk,) = tally.scores(min_count=1, shrinkage=3.0)
    assert {s.word: s.shrunk for s in shrunk} == pytest.approx({"once": 25.0, "good": 1.0, "film": 0.0})


def test_effects_that_were_not_measured_are_not_counted():
    tally = WordTally(2)
    tally.add(["good"], np.array([[1.0, np.nan]]))
    tally.add(["good"], np.array([[3.0, 5.0]]))
    first, second = tally.scores(min_count=1)
    assert (first[0].mean, first[0].n) == (2.0, 2) and (second[0].mean, second[0].n) == (5.0, 1)


def test_sides_hold_only_their_sign_strongest_first():
    table = scores({"a": 3.0, "b": 1.0, "zero": 0.0, "c": -1.0, "d": -4.0})
    assert [s.word for s in cloud_words(table, "positive")] == ["a", "b"]
    assert [s.word for s in cloud_words(table, "negative")] == ["d", "c"]
    assert len(cloud_words(table, "positive", 1)) == 1


def test_no_words_at_all():
    assert WordTally(2).scores() == [[], []]


def test_an_all_negative_cloud_is_drawn_as_negative(tmp_path):
    """wordcloud draws {'bad': -2} at full size as if positive."""
    kind, image, svg = draw({"bad": -2.0}, tmp_path, side="negative")
    assert kind == "cloud" and "-2.00" in svg and "#b3470b" in svg and ">bad<" in svg
    assert image.std() > 5


@pytest.mark.parametrize("words", [{}, {"zero": 0.0}, {"nan": float("nan"), "inf": float("inf")}])
def test_an_empty_cloud_says_so(tmp_path, words):
    kind, image, svg = draw(words, tmp_path)
    assert kind == "empty" and "no word" in svg and 0 < image.std()


def test_long_words_fit_and_stay_distinct(tmp_path):
    kind, _, svg = draw({"x" * 200: 2.0, "x" * 201: 1.5, "x" * 202: 1.0, "good": 0.5}, tmp_path)
    assert kind == "cloud" and svg.count("<text") == 4 and len(set(re.findall(r">(x+…\d*)<", svg))) == 3


def test_svg_scales_speaks_embeds_its_font_and_escapes(tmp_path):
    _, _, svg = draw({"<script>": 2.0, "good": 1.0}, tmp_path)
    assert 'viewBox="0 0 ' in svg and 'role="img"' in svg and "<title>feature 7 &lt;b&gt;: words</title>" in svg
    assert "<script>" not in svg and "base64," in svg and "http://www.w3.org" in svg and "href" not in svg


def test_words_that_are_weak_beside_the_other_side_look_weak(tmp_path):
    def letters(**options) -> list[float]:
        return [float(size) for size in re.findall(r'font-size="(\d+)"', draw({"a": 0.1}, tmp_path, **options)[2])]

    assert max(letters()) == max(letters(largest=0.1)) > 90 and max(letters(largest=1.0)) < 20


def test_the_same_words_give_the_same_bytes(tmp_path):
    first = draw({"good": 2.0, "fine": 1.0}, tmp_path)[2], (tmp_path / "cloud.png").read_bytes()
    again = draw({"good": 2.0, "fine": 1.0}, tmp_path)[2], (tmp_path / "cloud.png").read_bytes()
    assert first == again


def test_right_to_left_scripts_get_a_font_that_has_them(tmp_path):
    kind, _, svg = draw({"مرحبا": 2.0, "שלום": 1.0}, tmp_path)
    assert kind == "cloud" and "مرحبا" in svg


def test_scripts_without_glyphs_become_bars(tmp_path, monkeypatch):
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [])
    kind, image, svg = draw({"电影": 2.0, "好": 1.0}, tmp_path)
    assert kind == "bars" and "电影" in svg and "--font" in svg and 'role="img"' in svg and image.std() > 5


def test_a_few_words_without_glyphs_do_not_cost_the_cloud(tmp_path, monkeypatch):
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [])
    kind, _, svg = draw({"good": 2.0, "fine": 1.5, "电": 1.0}, tmp_path)
    assert kind == "cloud" and "1 more without glyphs" in svg and "电" not in svg


def test_fonts_are_checked(tmp_path):
    assert choose_font(["good"]) is not None
    broken = tmp_path / "font.ttf"
    broken.write_bytes(b"not a font")
    with pytest.raises(InputError, match="cannot read the font"):
        missing_characters(["a"], broken)
