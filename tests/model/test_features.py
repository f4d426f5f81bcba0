"""Features of one item become one vector, by hand; ids that hide; spans of time."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from model.config import FeatureSpec, TowerConfig
from model.features import FeatureMixer, bag_mean
from model.interests import Interests
from model.towers import ItemTower, TimeEmbedding, TwoTower
from tests.model.reference import randomise, time_vector

TABLE = torch.tensor([[9.0, 9.0], [1.0, 2.0], [3.0, 6.0], [5.0, -4.0]])


def test_a_bag_is_the_mean_of_its_codes_without_the_padding() -> None:
    codes = torch.tensor([[1, 3, 0], [0, 0, 0], [2, 2, 1], [0, 3, 0]], dtype=torch.int32)
    # (1 + 5) / 2, (2 - 4) / 2; nothing; (3 + 3 + 1) / 3, (6 + 6 + 2) / 3; 5, -4
    expected = torch.tensor([[3.0, -1.0], [0.0, 0.0], [7 / 3, 14 / 3], [5.0, -4.0]])
    torch.testing.assert_close(bag_mean(TABLE, codes), expected)


def test_the_bag_that_onnx_gets_is_the_same_bag(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = torch.from_numpy(np.random.default_rng(1).integers(0, 4, (50, 7)).astype(np.int32))
    ours = bag_mean(TABLE, codes)
    monkeypatch.setattr("torch.onnx.is_in_onnx_export", lambda: True)
    torch.testing.assert_close(bag_mean(TABLE, codes), ours)


SPECS = (
    FeatureSpec(name="craft", type="category", size=4),
    FeatureSpec(name="tags", type="categories", size=4),
    FeatureSpec(name="price", type="number", size=2),
    FeatureSpec(name="title", type="text", size=4),
    FeatureSpec(name="clip", type="vector", size=3),
)


def arrays(rng: np.random.Generator, num: int, width: int) -> dict[str, Tensor]:
    return {
        "item.craft": torch.from_numpy(rng.integers(0, 4, num).astype(np.int32)),
        "item.tags": torch.from_numpy(rng.integers(0, 4, (num, width)).astype(np.int32)),
        "item.price": torch.from_numpy(rng.normal(size=(num, 2)).astype(np.float32)),
        "item.title": torch.from_numpy(rng.integers(0, 4, (num, width)).astype(np.int32)),
        "item.clip": torch.from_numpy(rng.normal(size=(num, 3)).astype(np.float32)),
    }


def test_more_padding_changes_nothing() -> None:
    torch.manual_seed(1)
    mixer = FeatureMixer(SPECS, prefix="item", dim=6).eval()
    given = arrays(np.random.default_rng(1), 9, 4)
    wider = {n: torch.nn.functional.pad(v, (0, 3)) if v.dim() == 2 and v.dtype == torch.int32 else v
             for n, v in given.items()}  # fmt: skip
    with torch.no_grad():
        torch.testing.assert_close(mixer(given), mixer(wider))


def test_an_unknown_category_adds_nothing() -> None:
    torch.manual_seed(1)
    mixer = FeatureMixer(SPECS[:1], prefix="item", dim=6).eval()
    with torch.no_grad():
        nothing = mixer.mix(torch.zeros(1, 6))
        torch.testing.assert_close(mixer({"item.craft": torch.tensor([0])}), nothing)
        known = mixer({"item.craft": torch.tensor([2])})
        torch.testing.assert_close(known, mixer.mix(mixer.tables["0"][2:3]))


def item_config(**changes: object) -> TowerConfig:
    fields = {"num_items": 5, "num_events": 1, "dim": 6, "num_heads": 1, "item_features": SPECS}
    return TowerConfig(**{**fields, "id_dropout": 0.5, **changes})  # type: ignore[arg-type]


def test_an_item_without_a_trained_id_is_its_content() -> None:
    tower = ItemTower(item_config()).eval()
    given = arrays(np.random.default_rng(2), 3, 2)
    with torch.no_grad():
        vectors = tower(torch.tensor([0, 3, 0]), given)
        assert tower.content is not None
        craft, tags, _, title, _ = tower.content.parts(given)
        # Numbers and vectors, whose scale is the dataset's, are in the network's sum alone.
        content = craft + tags + title + tower.content(given)
    torch.testing.assert_close(vectors[[0, 2]], content[[0, 2]])
    torch.testing.assert_close(vectors[1], content[1] + tower.ids[3])


def test_id_dropout_hides_that_share_of_ids_in_training_only() -> None:
    tower = ItemTower(item_config(id_dropout=0.3))
    one = arrays(np.random.default_rng(2), 1, 2)
    given = {name: value.repeat(4000, *[1] * (value.dim() - 1)) for name, value in one.items()}
    ids = torch.full((4000,), 2)
    torch.manual_seed(3)
    with torch.no_grad():
        trained, served = tower.train()(ids, given), tower.eval()(ids, given)
        content = tower.combine(torch.zeros(4000, 6), given)
    hidden = (trained - content).abs().amax(dim=1) < 1e-6
    # 0.3 within four standard deviations of 4,000 draws: 4 × sqrt(0.3 × 0.7 / 4000) = 0.029.
    assert abs(hidden.float().mean().item() - 0.3) < 0.029
    torch.testing.assert_close(trained[~hidden], served[~hidden])


def test_cosine_vectors_have_length_one() -> None:
    model = randomise(TwoTower(item_config(similarity="cosine", num_interests=3)), seed=4)
    with torch.no_grad():
        vectors = model.item_tower(torch.tensor([1, 2]), arrays(np.random.default_rng(5), 2, 3))
        states = torch.randn(7, 6)
        zero = torch.zeros(7)
        interests = model.user_tower.read_out(
            states, idle=zero, objective=zero.long(), profile=None
        )
    assert interests.shape == (7, 3, 6)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(2))
    torch.testing.assert_close(interests.norm(dim=-1), torch.ones(7, 3))


def test_spans_of_time_are_linear_between_knots() -> None:
    embedding = TimeEmbedding(1)
    with torch.no_grad():
        embedding.knots.copy_(torch.arange(27.0).unsqueeze(1) ** 2)
        # Knots at 0, 1, 3 seconds hold 0, 1, 4. log2(1 + 2) = 1.585: 1 + 0.585 × (4 - 1) = 2.755.
        # Past the last knot, 2^26 - 1 seconds, nothing more: 26 squared.
        found = embedding(torch.tensor([0.0, 1.0, 3.0, 2.0, 2.0**26 - 1, 1e12])).squeeze(1)
    expected = torch.tensor([0.0, 1.0, 4.0, 1 + (math.log2(3) - 1) * 3, 676.0, 676.0])
    torch.testing.assert_close(found, expected)
    spans = torch.from_numpy(np.random.default_rng(1).exponential(1e5, 200)).float()
    with torch.no_grad():
        plain = time_vector(embedding.knots, spans)
        torch.testing.assert_close(embedding(spans), plain, rtol=1e-4, atol=1e-3)


def test_a_new_time_embedding_adds_nothing() -> None:
    with torch.no_grad():
        assert not TimeEmbedding(4)(torch.tensor([0.0, 5.0, 1e9])).any()


def test_one_interest_is_the_state_and_more_are_views_of_it() -> None:
    state = torch.randn(3, 5, 4)
    assert list(Interests(4, 1).parameters()) == []
    torch.testing.assert_close(Interests(4, 1)(state), state.unsqueeze(-2))
    several = Interests(4, 3)
    assert several.views is not None
    with torch.no_grad():
        found = several(state)
        for m, view in enumerate(several.views, 1):
            torch.testing.assert_close(found[..., m, :], state + state @ view)
    torch.testing.assert_close(found[..., 0, :], state)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_new_items_may_weigh_more_outside_training(similarity: str) -> None:
    plain = ItemTower(item_config(similarity=similarity)).eval()
    heavy = ItemTower(item_config(similarity=similarity)).eval()
    heavy.load_state_dict(plain.state_dict())
    heavy.new_item_weight.fill_(1.5)
    given, ids = arrays(np.random.default_rng(2), 3, 2), torch.tensor([0, 3, 0])
    with torch.no_grad():
        expected = plain(ids, given) * torch.tensor([[1.5], [1.0], [1.5]])
        torch.testing.assert_close(heavy(ids, given), expected)
        vectors = plain.ids[[0, 3, 0]]
        vectors[0] = vectors[2] = 0
        torch.testing.assert_close(heavy.train().combine(vectors, given), plain(ids, given))
