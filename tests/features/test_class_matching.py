"""The network's outputs that belong to the data's classes."""

from __future__ import annotations

import json

import pytest

from debugnet.errors import InputError
from debugnet.features.class_matching import imagenet_synsets, match_classes, readable_names


def match(*arguments, **options):
    found = match_classes(*arguments, **options)
    return None if found is None else found.tolist()


def test_names_match_whatever_their_spelling():
    network = ["tench", "Goldfish", "great white shark", "crane", "crane"]
    assert match(["great_white_shark", "TENCH", "crane"], network, 5) == [2, 0, 3]
    assert match(["tench", "unicorn"], network, 5) is None


def test_order_counts_only_where_no_name_speaks_against_it():
    assert match(["0", "1", "2"], None, 3) == [0, 1, 2]
    assert match(["neg", "pos"], ["LOW", "HIGH"], 2) == [0, 1]
    assert match(["pos", "neg"], ["NEG", "POS"], 2) == [1, 0]
    assert match(["pos", "unknown"], ["NEG", "POS"], 2) is None
    assert match(["a", "b"], None, 3) is None


def test_wordnet_ids_are_imagenets_outputs():
    from torchvision.models import ResNet18_Weights

    names = ResNet18_Weights.DEFAULT.meta["categories"]
    imagenette = "n01440764 n02102040 n02979186 n03000684 n03028079 n03394916 n03417042 n03425413 n03445777 n03888257"
    assert match(imagenette.split(), names, 1000) == [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]
    assert [names[i] for i in (0, 217, 701)] == ["tench", "English springer", "parachute"]
    assert len(set(imagenet_synsets())) == 1000 and imagenet_synsets() == sorted(imagenet_synsets())
    assert match(["n01440764", "n99999999"], names, 1000) is None
    assert match(["n01440764", "n02102040"], ["cat", "dog", "fox"], 3) is None


def test_wordnet_ids_are_shown_as_the_names_people_know():
    from torchvision.models import ResNet18_Weights

    names = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    assert readable_names(["n03000684", "n01440764"], names) == ["chain saw", "tench"]
    crane, bird = names.index("crane"), len(names) - 1 - names[::-1].index("crane")
    both = [imagenet_synsets()[i] for i in sorted({crane, bird})]
    shown = readable_names(both, names)
    assert len(set(shown)) == len(both) and all(name.startswith("crane") for name in shown)
    for unchanged in (["cat", "dog"], ["n03000684", "dog"], ["n99999999"]):
        assert readable_names(unchanged, names) == unchanged
    assert readable_names(["n03000684"], None) == ["n03000684"]


def test_a_map_of_the_users_own(tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"cats": "tabby", "dogs": 2}))
    assert match(["dogs", "cats"], ["tabby", "fox", "beagle"], 3, class_map=path) == [2, 0]
    for content, message in [
        ({"cats": 0}, "has nothing for the class 'dogs'"),
        ({"cats": 0, "dogs": 3}, "'dogs' -> 3 is no output of the network's 3"),
        ({"cats": 0, "dogs": "wolf"}, "'dogs' -> 'wolf' is no output"),
        ([1], "must be a JSON object"),
    ]:
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match=message):
            match(["dogs", "cats"], ["tabby", "fox", "beagle"], 3, class_map=path)
    path.write_text("{")
    with pytest.raises(InputError, match="not readable as JSON"):
        match(["dogs"], None, 3, class_map=path)
