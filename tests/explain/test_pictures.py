"""Overlays, panels and sheets: the sign is right and survives without colour."""

from __future__ import annotations

import numpy as np

from debugnet.explain.overlay import explanation_panel, masked_form, signed_overlay
from debugnet.explain.prototypes import contact_sheet, extreme_samples, is_one_sided
from debugnet.explain.sentence_panel import sentence_panel
from debugnet.explain.tokenization import Words

SEGMENTS = np.repeat(np.repeat(np.arange(4).reshape(2, 2), 16, axis=0), 16, axis=1)
PIXELS = np.full((32, 32, 3), 128, dtype=np.uint8)
EFFECT = np.array([1.0, -1.0, 0.0, 0.1])


def test_raising_and_lowering_differ_without_colour():
    grey = signed_overlay(PIXELS, SEGMENTS, EFFECT, 1.0).mean(axis=2)
    raising, lowering, nothing = (grey[SEGMENTS == part].reshape(16, 16) for part in range(3))
    assert (raising == 255).any() and not (lowering == 255).any()  # outlined in white
    assert lowering[4:12, 4:12].std() > 20 > raising[4:12, 4:12].std()  # hatched
    assert nothing[4:12, 4:12].std() == 0


def test_the_scale_is_fixed_and_symmetric():
    weak = signed_overlay(PIXELS, SEGMENTS, EFFECT * 0.1, 1.0).astype(float)
    strong = signed_overlay(PIXELS, SEGMENTS, EFFECT, 1.0).astype(float)
    ground = signed_overlay(PIXELS, SEGMENTS, EFFECT * 0, 1.0).astype(float)
    centre = (8, 8)
    ratio = np.linalg.norm(weak[centre] - ground[centre]) / np.linalg.norm(strong[centre] - ground[centre])
    assert 0.05 < ratio < 0.15


def test_the_masked_form_of_a_side_holds_only_that_side():
    """The reference showed the raising parts for both signs."""
    image = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
    up, down = masked_form(image, SEGMENTS, EFFECT, "positive", 1), masked_form(image, SEGMENTS, EFFECT, "negative", 1)
    for shown, part in ((up, 0), (down, 1)):
        np.testing.assert_array_equal(shown[SEGMENTS == part], image[SEGMENTS == part])
        assert (shown[SEGMENTS != part] == 153).all()
    none = masked_form(image, SEGMENTS, np.abs(EFFECT), "negative", 3)
    assert (none == 153).all()


def test_panels_and_sheets_are_drawn_at_any_size():
    for side in (32, 224):
        segments = np.arange(side * side).reshape(side, side) // (side * side // 4)
        pixels = np.random.RandomState(0).randint(0, 255, (side, side, 3)).astype(np.uint8)
        panel = explanation_panel(
            pixels, segments, EFFECT, "positive", limit=1.0, title="feature 1 é", notes=("a", "unstable: b")
        )
        assert np.array(panel)[-40:].std() > 0 and panel.width == 680
    sheet = contact_sheet([PIXELS] * 7, [("+1 sd", "a very long class name that must be cut")] * 7, "title")
    assert sheet.size[0] > 5 * 128


def test_sentences_are_wrapped_and_marked():
    words = Words.of("a good film " * 20 + "x" * 400)
    effect = np.array([0.0, 1.0, -1.0, np.nan])
    panel = sentence_panel([(words, effect, "note", "unstable: why")], "title", limit=1.0)
    colours = {tuple(c) for c in np.array(panel).reshape(-1, 3)[::7]}
    assert panel.width == 720 and len(colours) > 10


def test_right_to_left_sentences_stand_on_the_right_and_missing_glyphs_are_owned_up_to(monkeypatch):
    def panel(text: str) -> np.ndarray:
        words = Words.of(text)
        picture = sentence_panel([(words, np.ones(len(words.vocabulary)), "", "")], "", limit=1.0)
        return np.array(picture.convert("L"))

    left, right = panel("good film")[50:75], panel("שלום עולם")[50:75]
    assert (left[:, :200] < 200).any() and not (left[:, 520:] < 200).any()
    assert (right[:, 520:] < 200).any() and not (right[:, :200] < 200).any()
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [])
    assert (panel("电影")[20:45, 430:650] < 200).any() and not (panel("film")[20:45, 430:650] < 200).any()


def test_extremes_pass_over_what_cannot_be_used():
    activations = np.array([5.0, np.nan, 3.0, 9.0, 3.0, -1.0])
    usable = np.array([True, True, True, False, True, True])
    assert extreme_samples(activations, usable, "positive", 3).tolist() == [0, 2, 4]
    assert extreme_samples(activations, usable, "negative", 2).tolist() == [5, 2]
    assert is_one_sided(np.array([0.0, 1.0, np.nan])) and not is_one_sided(np.array([-0.1, 1.0]))
