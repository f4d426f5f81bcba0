"""Text tables that begin with the catalogue's own texts: like titles lie near before training."""

import numpy as np
import pytest
import torch

from model.config import FeatureSpec, TowerConfig
from model.text import NUM_TEXT_BUCKETS
from model.text_arrays import text_codes
from model.towers import ItemTower
from training.text_init import ngram_vectors, start_from_texts

TITLES = [
    "bamboo flute from the village",
    "bamboo flute with silk",
    "old bamboo flute",
    "dried mushroom soup",
    "mushroom soup with noodles",
    "mushroom noodles",
    None,
]
KINDS = FeatureSpec(name="kind", type="category", size=3)
TITLE = FeatureSpec(name="title", type="text", size=NUM_TEXT_BUCKETS + 1)


def tower(*specs: FeatureSpec, dim: int = 8) -> ItemTower:
    torch.manual_seed(0)
    config = TowerConfig(num_items=7, num_events=1, dim=dim, num_heads=1, item_features=specs)
    return ItemTower(config)


def features() -> dict[str, torch.Tensor]:
    kinds = torch.ones(len(TITLES), dtype=torch.int32)
    return {"item.kind": kinds, "item.title": torch.from_numpy(text_codes(TITLES * 3)[:7])}


def title_parts(made: ItemTower) -> torch.Tensor:
    assert made.content is not None
    with torch.no_grad():
        return made.content.parts(features())[1]


def test_like_titles_begin_near_and_have_the_length_that_was_asked_for() -> None:
    made = tower(KINDS, TITLE)
    before = made.content.tables["0"].clone()  # type: ignore[union-attr]
    made.content.tables["1"].data.zero_()  # type: ignore[union-attr]
    start_from_texts(made, features(), length=0.5, seed=3)
    parts = title_parts(made)
    assert parts[:6].norm(dim=1).mean().item() == pytest.approx(0.5, rel=1e-4)
    assert parts[6].norm().item() == 0  # no title, no direction
    near = torch.nn.functional.cosine_similarity(parts[:6, None], parts[None, :6], dim=-1)
    same = torch.tensor([[i // 3 == j // 3 for j in range(6)] for i in range(6)])
    assert near[same].min() > near[~same].max() + 0.1
    torch.testing.assert_close(made.content.tables["0"], before)  # type: ignore[union-attr]


def test_the_same_seed_gives_the_same_start() -> None:
    first, second = tower(TITLE), tower(TITLE)
    for made in (first, second):
        start_from_texts(made, {"item.title": features()["item.title"]}, length=0.5, seed=3)
    torch.testing.assert_close(first.content.tables["0"], second.content.tables["0"])  # type: ignore[union-attr]


def test_n_grams_that_no_text_holds_have_no_vector() -> None:
    codes = text_codes(TITLES * 3)[:7]
    vectors = ngram_vectors(codes, num_codes=TITLE.size, dim=4, seed=0)
    held = np.zeros(TITLE.size, bool)
    held[codes] = True
    held[0] = False
    assert (vectors[~held] == 0).all() and np.linalg.norm(vectors[held], axis=1).min() > 0


def test_more_dimensions_than_texts_can_fill_stay_zero() -> None:
    vectors = ngram_vectors(text_codes(TITLES * 3)[:2], num_codes=TITLE.size, dim=16, seed=0)
    assert (vectors[:, :2] != 0).any() and (vectors[:, 2:] == 0).all()


def test_catalogues_without_texts_are_left_as_they_are() -> None:
    made = tower(KINDS)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    start_from_texts(made, features(), length=0.5, seed=0)
    for name, value in made.state_dict().items():
        torch.testing.assert_close(value, before[name])
    start_from_texts(
        tower(TITLE),
        {"item.title": torch.zeros((7, 1), dtype=torch.int32)},
        length=0.5,
        seed=0,
    )  # titles, all of them empty
