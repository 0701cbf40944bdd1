import json
import math
from dataclasses import dataclass

import pytest
import torch

from rewards.mix import combine_gradients, combine_scores, cosines_of, pulling_gradients, pulls_of, usable
from rewards.pulls import Memory
from rewards.registry import spec_of
from rewards.spec import RewardSpec
from rewards.terms import Mixing, RewardTerm, check_gradient, check_mixing, check_terms, check_weight


@dataclass
class Mixed:
    score: torch.Tensor
    gradient: torch.Tensor
    valid: torch.Tensor


def mix(scores, gradients, terms, normalize, memory=Memory(), **mixing):  # noqa: B008 - frozen
    """All at once; with `normalize` in units of the gradients' size."""
    valid = usable(scores, gradients, terms)
    pulling = pulling_gradients(scores, gradients, terms, valid)
    how = Mixing(normalize="gradients" if normalize else None, **mixing)
    gradient = combine_gradients(pulling, terms, how, memory, pulls_of(pulling, scores, valid))
    return Mixed(combine_scores(scores, terms), gradient, valid)


def pulls(scores, gradients, terms):
    valid = usable(scores, gradients, terms)
    return pulls_of(pulling_gradients(scores, gradients, terms, valid), scores, valid)


@pytest.fixture
def batch():
    """Three images, two rewards."""
    generator = torch.Generator().manual_seed(0)
    scores = {"a": torch.tensor([1.0, 3.0, 5.0]), "b": torch.tensor([-1.0, 0.5, 0.0])}
    gradients = {name: torch.randn(3, 3, 4, 4, generator=generator) for name in scores}
    gradients["b"] *= 100
    return scores, gradients


def norms(gradient):
    return gradient.flatten(1).norm(dim=1)


def test_weighted_sum(batch):
    scores, gradients = batch
    mixed = mix(scores, gradients, [RewardTerm("a", 2.0), RewardTerm("b", -0.5)], normalize=False)
    torch.testing.assert_close(mixed.score, 2 * scores["a"] - 0.5 * scores["b"])
    torch.testing.assert_close(mixed.gradient, 2 * gradients["a"] - 0.5 * gradients["b"])
    assert mixed.valid.all()


def test_cap(batch):
    scores, gradients = batch
    mixed = mix(scores, gradients, [RewardTerm("a", 2.0, cap=3.0)], normalize=False)
    assert mixed.score.tolist() == [2, 6, 6]
    torch.testing.assert_close(mixed.gradient[:2], 2 * gradients["a"][:2])  # at the cap is not above it
    assert (mixed.gradient[2] == 0).all()
    assert mixed.valid.all()


def test_normalized_gradients_have_the_size_of_their_weights(batch):
    scores, gradients = batch
    for name in gradients:
        mixed = mix(scores, gradients, [RewardTerm(name, 3.0)], normalize=True)
        size = norms(gradients[name])
        torch.testing.assert_close(norms(mixed.gradient), 3 * size / size.square().mean().sqrt())
        torch.testing.assert_close(mixed.score, 3 * scores[name])  # scores keep their units
    both = mix(scores, gradients, [RewardTerm("a", 1.0), RewardTerm("b", 2.0)], normalize=True)
    parts = [mix(scores, gradients, [RewardTerm(n, w)], normalize=True).gradient for n, w in (("a", 1.0), ("b", 2.0))]
    torch.testing.assert_close(both.gradient, sum(parts))


def test_normalization_looks_at_images_with_a_gradient_only(batch):
    scores, gradients = batch
    mixed = mix(scores, gradients, [RewardTerm("a", 1.0, cap=4.0)], normalize=True)
    assert norms(mixed.gradient)[:2].square().mean() == pytest.approx(1)
    assert (mixed.gradient[2] == 0).all()
    none = mix(scores, gradients, [RewardTerm("a", 1.0, cap=0.0)], normalize=True)
    assert (none.gradient == 0).all()
    assert none.valid.all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["score", "gradient"])
def test_non_finite_samples_are_marked_and_teach_nothing(batch, bad, where):
    scores, gradients = batch
    clean = mix(
        {n: s[[0, 2]] for n, s in scores.items()},
        {n: g[[0, 2]] for n, g in gradients.items()},
        terms := [RewardTerm("a", 1.0, cap=4.0), RewardTerm("b", 1.0)],
        normalize=True,
    )
    if where == "score":
        scores["b"][1] = bad
    else:
        gradients["b"][1, 2, 3, 0] = bad
    mixed = mix(scores, gradients, terms, normalize=True)
    assert mixed.valid.tolist() == [True, False, True]
    assert mixed.score[1].isnan() == (where == "score")
    assert (mixed.gradient[1] == 0).all()
    torch.testing.assert_close(mixed.gradient[[0, 2]], clean.gradient)
    torch.testing.assert_close(mixed.score[[0, 2]], clean.score)


def test_watched_rewards_take_no_part(batch):
    scores, gradients = batch
    terms = [RewardTerm("a", 1.0), RewardTerm("b", 0.0)]
    expected = mix(scores, gradients, terms[:1], normalize=False)
    scores["b"][:] = math.nan
    for watched in ({"a": gradients["a"], "b": None}, {"a": gradients["a"]}):
        mixed = mix(scores, watched, terms, normalize=False)
        torch.testing.assert_close(mixed.gradient, expected.gradient)
        assert mixed.valid.all()


def test_the_cap_of_a_negative_weight_is_a_floor(batch):
    """Less is better, and enough is enough there too: the bad image teaches, the good one no more."""
    scores, gradients = batch
    mixed = mix(scores, gradients, [RewardTerm("a", -2.0, cap=3.0)], normalize=False)
    assert mixed.score.tolist() == [-2 * max(a, 3.0) for a in scores["a"].tolist()]
    for b, a in enumerate(scores["a"].tolist()):
        torch.testing.assert_close(mixed.gradient[b], (-2 if a >= 3.0 else 0) * gradients["a"][b])
    assert {a >= 3.0 for a in scores["a"].tolist()} == {True, False}


def test_a_black_box_has_its_part_in_the_score_alone(batch):
    scores, gradients = batch
    terms = [RewardTerm("a", 2.0), RewardTerm("b", -0.5, cap=0.25)]
    for black in ({"a": gradients["a"], "b": None}, {"a": gradients["a"]}):
        mixed = mix(scores, black, terms, normalize=False)
        torch.testing.assert_close(mixed.score, 2 * scores["a"] - 0.5 * scores["b"].clamp(min=0.25))
        torch.testing.assert_close(mixed.gradient, 2 * gradients["a"])
        assert mixed.valid.all()
    scores["b"][1] = math.nan
    mixed = mix(scores, {"a": gradients["a"]}, terms, normalize=False)
    assert mixed.valid.tolist() == [True, False, True]
    assert (mixed.gradient[1] == 0).all()


def test_a_capped_score_that_is_infinite_is_none(batch):
    scores, gradients = batch
    scores["a"][1] = math.inf
    mixed = mix(scores, gradients, [RewardTerm("a", 1.0, cap=2.0)], normalize=False)
    assert mixed.score.isnan().tolist() == [False, True, False]
    assert mixed.valid.tolist() == [True, False, True]


def test_inputs_are_left_alone(batch):
    scores, gradients = batch
    before = {n: s.clone() for n, s in scores.items()}, {n: g.clone() for n, g in gradients.items()}
    assert isinstance(mix(scores, gradients, [RewardTerm("a", 2.0, cap=2.0)], normalize=True), Mixed)
    for now, then in zip(batch, before, strict=True):
        torch.testing.assert_close(now, then)


def test_what_cannot_be_mixed(batch):
    scores, gradients = batch
    with pytest.raises(ValueError, match="no reward has a weight other than 0"):
        mix(scores, gradients, [RewardTerm("a", 0.0)], normalize=True)
    with pytest.raises(ValueError, match=r"no scores of reward 'c'.*there are a, b"):
        mix(scores, gradients, [RewardTerm("c", 1.0)], normalize=True)
    with pytest.raises(ValueError, match="no gradient to combine: none of a, b has one"):
        mix(scores, {"a": None}, [RewardTerm("a", 1.0), RewardTerm("b", 1.0), RewardTerm("c", 0.0)], normalize=True)


@pytest.mark.parametrize(("field", "value"), [("weight", math.nan), ("weight", math.inf), ("cap", math.nan)])
def test_terms_check_themselves(field, value):
    with pytest.raises(ValueError, match=f"{field} of reward 'a' must be a finite number"):
        RewardTerm(**{"name": "a", "weight": 1.0, field: value})


def test_terms_that_can_be_trained_on():
    terms = [
        RewardTerm("preference", 1.0),
        RewardTerm("heldout_preference", 0.0),
        RewardTerm("jpeg_compressibility", 0.0),
    ]
    check_terms(terms)
    for term in terms:
        check_weight(term, spec_of(term.name))
    check_weight(RewardTerm("of batches", 1.0), RewardSpec("a:B", "", {}, differentiable=True, batchwise=True))


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([RewardTerm("preference", 0.0)], "nothing to learn from.*given: preference"),
        ([], "nothing to learn from.*given: none"),
        ([RewardTerm("preference", 1.0)] * 2, "named more often: preference"),
    ],
)
def test_terms_that_cannot(terms, message):
    with pytest.raises(ValueError, match=message):
        check_terms(terms)


def test_what_cannot_teach():
    term = RewardTerm("own", -1.0)
    with pytest.raises(ValueError, match=r"held out for evaluation.*Give it weight 0 to watch it"):
        check_weight(term, RewardSpec("own:Own", "", {}, differentiable=True, heldout=True))
    with pytest.raises(ValueError, match=r"no gradient: it is a black box\. Choose a plan by which"):
        check_gradient(term, RewardSpec("own:Own", "", {}, differentiable=False))
    check_weight(term, RewardSpec("own:Own", "", {}, differentiable=False))


def test_one_reward_by_two_texts():
    """The same reward pulls towards one text and away from another; its scores are kept apart."""
    terms = [RewardTerm("alignment", 1.0, text="target"), RewardTerm("alignment", -0.5)]
    check_terms(terms)
    assert [term.key for term in terms] == ["alignment@target", "alignment"]
    scores = {"alignment@target": torch.tensor([0.2]), "alignment": torch.tensor([0.4])}
    gradients = {"alignment@target": torch.ones(1, 3, 2, 2), "alignment": 3 * torch.ones(1, 3, 2, 2)}
    mixed = mix(scores, gradients, terms, normalize=False)
    assert mixed.score.item() == pytest.approx(0.0, abs=1e-7)
    torch.testing.assert_close(mixed.gradient, torch.full((1, 3, 2, 2), -0.5))
    with pytest.raises(ValueError, match="named more often: alignment@target"):
        check_terms([*terms, RewardTerm("alignment", 1.0, text="target")])


def test_a_target_is_come_near_to_from_both_sides(batch):
    """By finite differences: s' = -|s - t|, as a function of an image along a line."""
    scores, gradients = batch
    for weight in (2.0, -2.0):
        mixed = mix(scores, gradients, [RewardTerm("a", weight, target=2.0)], normalize=False)
        assert mixed.score.tolist() == [weight * -abs(a - 2.0) for a in scores["a"].tolist()]
        moved = mix({"a": scores["a"] + 1e-2}, gradients, [RewardTerm("a", weight, target=2.0)], normalize=False)
        slopes = (moved.score - mixed.score) / 1e-2
        for slope, got, g in zip(slopes, mixed.gradient, gradients["a"], strict=True):
            torch.testing.assert_close(got, slope.round() * g)
    exact = mix({"a": torch.full((3,), 2.0)}, gradients, [RewardTerm("a", 1.0, target=2.0)], normalize=False)
    assert not exact.gradient.any()


def test_what_a_target_cannot_be():
    with pytest.raises(
        ValueError, match=r"target of reward 'a' must be a finite number, and without a cap, got 1.0 and"
    ):
        RewardTerm("a", 1.0, cap=2.0, target=1.0)
    with pytest.raises(ValueError, match=r"mgda is for two rewards with a weight, got 1 .a.; choose pcgrad"):
        check_mixing([RewardTerm("a", 1.0), RewardTerm("b", 0.0)], Mixing(combine="mgda"))


def test_memory_makes_the_objective_the_same_however_batches_are_cut(batch):
    scores, gradients = batch
    terms = [RewardTerm("a", 1.0, cap=4.0), RewardTerm("b", -2.0)]
    memory = Memory().after(pulls(scores, gradients, terms))
    whole = mix(scores, gradients, terms, normalize=True, memory=memory).gradient
    for b in range(3):
        one = {n: s[b : b + 1] for n, s in scores.items()}, {n: g[b : b + 1] for n, g in gradients.items()}
        torch.testing.assert_close(mix(*one, terms, normalize=True, memory=memory).gradient, whole[b : b + 1])


def test_a_satisfied_reward_is_not_blown_up(batch):
    """Its gradients, a billionth of what they were, used to count as much as ever."""
    scores, gradients = batch
    terms = [RewardTerm("a", 1.0), RewardTerm("b", 1.0)]
    memory = Memory().after(pulls(scores, gradients, terms))
    tiny = gradients | {"a": 1e-9 * gradients["a"]}
    for _ in range(500):
        memory = memory.after(pulls(scores, tiny, terms))
    largest = pulls(scores, gradients, terms)["a"].norm
    assert memory.total["a"].norm < 0.05 * largest
    assert memory.size("a", "gradients", 0.1) == pytest.approx(0.1 * largest)
    pulled = mix(scores, tiny, terms[:1], normalize=True, memory=memory, floor=0.1).gradient
    assert norms(pulled).max() < 1e-7


def test_weights_in_deviations_of_scores(batch):
    scores, gradients = batch
    terms = [RewardTerm("a", 3.0)]
    memory = Memory()
    for _ in range(4):
        memory = memory.after(pulls(scores, gradients, terms))
    valid = usable(scores, gradients, terms)
    pulling = pulling_gradients(scores, gradients, terms, valid)
    got = combine_gradients(pulling, terms, Mixing("scores"), memory, {})
    torch.testing.assert_close(got, 3 / scores["a"].std(correction=0) * gradients["a"])
    same = pulls({"a": torch.full((3,), 0.3)}, gradients, terms)["a"]
    assert same.deviation is None


def test_memory_survives_a_file(batch):
    scores, gradients = batch
    memory = Memory().after(pulls(scores, gradients, [RewardTerm("a", 1.0), RewardTerm("b", 1.0)]))
    assert Memory.from_json(json.loads(json.dumps(memory.to_json()))) == memory


def test_cosines_say_which_way_rewards_pull(batch):
    scores, gradients = batch
    terms = [RewardTerm("a", 1.0), RewardTerm("b", -0.1), RewardTerm("c", 1.0)]
    scores, gradients = scores | {"c": scores["a"]}, gradients | {"c": 5 * gradients["a"]}
    gradients["c"][1] = 0  # an image that it has nothing to say of does not count
    pulling = pulling_gradients(scores, gradients, terms, torch.ones(3, dtype=torch.bool))
    found = cosines_of(pulling, terms)
    assert found.keys() == {"a/b", "a/c", "b/c"}
    assert found["a/c"] == pytest.approx(1)
    a, b = (gradients[n].flatten(1) for n in "ab")
    assert found["a/b"] == pytest.approx(-torch.nn.functional.cosine_similarity(a, b).mean().item(), abs=1e-6)


def test_rows_weigh_a_reward_and_choose_it(batch):
    scores, gradients = batch
    scores["b"][2], gradients["b"][2] = math.nan, math.nan  # where it does not count it need not be
    terms = [RewardTerm("a", 2.0), RewardTerm("b", -0.5, weigh_by="how_much", shares=(1.0, 3.0, 0.0))]
    mixed = mix(scores, gradients, terms, normalize=False)
    expected = [RewardTerm("a", 2.0), RewardTerm("b", -0.5)], [RewardTerm("a", 2.0), RewardTerm("b", -1.5)]
    for image, alike in enumerate((*expected, [RewardTerm("a", 2.0)])):
        one = {key: value[image : image + 1] for key, value in scores.items()}
        own = mix(one, {key: g[image : image + 1] for key, g in gradients.items()}, alike, normalize=False)
        torch.testing.assert_close(mixed.score[image], own.score[0])
        torch.testing.assert_close(mixed.gradient[image], own.gradient[0])
    assert mixed.valid.all()
    assert pulls(scores, gradients, terms)["b"].images == 2
    scores["b"][1] = math.nan
    assert mix(scores, gradients, terms, normalize=False).valid.tolist() == [True, False, True]
