"""Recipes are strict: what is not understood is refused, everything at once, with its line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from debugnet.errors import InputError, UsageError
from debugnet.recipes.reading import read_recipe
from debugnet.registry import STAGES


@pytest.fixture(autouse=True)
def probes(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "cli" / "plugin"))
    monkeypatch.setattr(STAGES, "_entries", dict(STAGES._entries))
    STAGES.add("probe", "probes.stages.probe:run", "A stage.")
    STAGES.add("second", "probes.stages.second:run", "Another.")
    yield
    for name in [n for n in sys.modules if n.startswith("probes")]:
        del sys.modules[name]


@pytest.fixture
def recipe(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "r.yaml"
        path.write_text(text)
        return path

    return write


def read(path, *overrides, environment=None):
    return read_recipe(path, Path("folder"), overrides, environment or {})


def test_values_mean_what_they_mean_on_the_command_line(recipe):
    (section,) = read(
        recipe("""
probe:
  source: a.txt
  do: no            # YAML would make a boolean of it
  size: 012
  share: 5%
  rate: 1e-6        # and a string of this
  tag: [a, "b,c"]
  names: x, y
  strict: yes
  bias: false
""")
    )
    options = section.options
    assert (options.source, options.behaviour, options.size) == (Path("a.txt"), "no", 12)
    assert (options.share, options.rate) == (0.05, 1e-6)
    assert (options.tags, options.names) == (("a", "b,c"), ("x", "y"))
    assert (options.strict, options.bias) == (True, False)


def test_null_is_the_default_of_an_option_that_may_be_none(recipe):
    assert read(recipe("probe:\n  source: a\n  rate: null\n"))[0].options.rate is None
    with pytest.raises(UsageError, match=r"r.yaml:3: probe.size: needs a value"):
        read(recipe("probe:\n  source: a\n  size: null\n"))


def test_inputs_are_wired_to_the_stage_above(recipe):
    first, second = read(recipe("probe:\n  source: a\nsecond:\n"))
    assert first.output == Path("folder/probe.txt")
    assert second.options.probe == Path("folder/probe.txt")
    assert second.output == Path("folder/second.txt")


def test_an_output_elsewhere_is_followed(recipe):
    first, second = read(recipe("probe:\n  source: a\n  output: other/p.txt\nsecond:\n"))
    assert first.output == second.options.probe == Path("other/p.txt")


def test_all_mistakes_are_reported_together_with_their_lines(recipe):
    path = recipe("""\
prob:
  source: a
probe:
  sise: 3
  size: many
  mode: slow
  mode: right
  share: 5
second: 7
second:
  factor: {a: 1}
""")
    with pytest.raises(UsageError) as caught:
        read(path, "probe.tagg=1", "third.x=1", "nonsense")
    text = str(caught.value)
    for line in (
        "r.yaml has 12 mistakes:",
        "r.yaml:1: there is no stage 'prob', did you mean 'probe'?",
        "r.yaml:4: probe.sise: there is no such option, did you mean 'size'?",
        "r.yaml:5: probe.size: 'many' is not a whole number",
        "r.yaml:6: probe.mode: 'slow' is not one of fast, right",
        "r.yaml:7: probe.mode: stands twice",
        "r.yaml:8: probe.share: '5' has no percent sign",
        "probe.source is missing: Any file",
        "r.yaml:9: 'second' needs options as 'name: value' lines below it, or nothing",
        "r.yaml:11: second.factor: expected one value or a list of values",
        "--set probe.tagg=1: there is no such option, did you mean 'tag'?",
        "--set third.x=1: the recipe has no stage 'third'; known: probe, second",
        "--set nonsense: expected STAGE.OPTION=VALUE, like fit-path.tol=1e-7",
    ):
        assert line in text, text


def test_what_a_recipe_class_refuses_is_a_mistake_of_the_recipe(recipe):
    with pytest.raises(UsageError, match=r"r.yaml: probe: size is -1: it must be 0 or more"):
        read(recipe("probe:\n  source: a\n  size: -1\n"))


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "holds no stages"),
        ("- a\n- b\n", "holds no stages"),
        ("probe: [", "is no YAML"),
        ("probe:\n\tsource: a\n", "is no YAML"),
        ("run:\n  recipe: x\n", "there is no stage 'run'"),
        ("probe:\n  source: !!python/object/apply:os.system ['true']\n", "apply:os.system has no meaning"),
    ],
)
def test_no_recipe(recipe, text, message):
    with pytest.raises((InputError, UsageError), match=message):
        read(recipe(text))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="there is no recipe"):
        read(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)


def test_overrides_and_environment(recipe):
    path = recipe("probe:\n  source: ${DATA:-base}/a\n  tag: ['${TAG}', b]\n")
    (section,) = read(path, "probe.share=7%", "probe.tag=x,y", environment={"TAG": "t"})
    assert section.options.source == Path("base/a")
    assert section.options.share == 0.07 and section.options.tags == ("x,y",)
    (section,) = read(path, environment={"TAG": "t", "DATA": "/d"})
    assert section.options.source == Path("/d/a") and section.options.tags == ("t", "b")
    with pytest.raises(UsageError, match=r"r.yaml:3: probe.tag: the environment variable TAG is not set"):
        read(path)
