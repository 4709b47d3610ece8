"""Numbers against values by hand, by brute force, and of scikit-learn where it is installed."""

import pytest
import torch
import torch.nn.functional as F

from rainmer.views import mean_cosines, measure_separability


def cloud(direction, count, spread, seed=0):
    """Unit vectors around one of 8 directions."""
    chance = torch.Generator().manual_seed(seed)
    centre = torch.eye(8)[direction]
    return F.normalize(centre + spread * torch.randn(count, 8, generator=chance), dim=1)


def test_mean_cosines_are_means_over_all_pairs():
    sets = [cloud(0, 5, 0.5), cloud(1, 3, 0.5), cloud(2, 1, 0.5)]
    matrix = mean_cosines(sets)
    for row, a in enumerate(sets):
        for column, b in enumerate(sets):
            expected = torch.stack([x.double() @ y.double() for x in a for y in b]).mean()
            assert matrix[row, column] == pytest.approx(float(expected))
    assert torch.equal(matrix, matrix.T)


def test_sets_apart_are_separated():
    measured = measure_separability([cloud(0, 20, 0.05), cloud(1, 9, 0.05), cloud(2, 3, 0.05)])
    assert measured.accuracy == measured.ci_low == measured.ci_high == 1.0
    assert measured.chance == pytest.approx(1 / 3)
    assert torch.equal(measured.confusion, torch.eye(3, dtype=torch.float64))
    assert measured.silhouette > 0.9


def test_one_cloud_cut_in_two_is_not_separated():
    vectors = cloud(0, 400, 1.0)
    measured = measure_separability([vectors[:200], vectors[200:]])
    assert measured.ci_low - 0.05 < 0.5 < measured.ci_high + 0.05
    assert abs(measured.silhouette) < 0.05
    assert measured.confusion.sum(1).allclose(torch.ones(2, dtype=torch.float64))


def test_small_sets_weigh_as_much_as_large_ones():
    """A set of 4 within one of 200 halves the accuracy at most, though it is 2 % of the images."""
    large, small = cloud(0, 200, 0.02), cloud(1, 4, 0.02)
    swapped = measure_separability([large, torch.cat([small[:2], large[:2]])])
    assert swapped.accuracy < 0.9


def test_the_interval_holds_the_accuracy_and_shrinks_with_more_images():
    few, many = (
        measure_separability([cloud(0, count, 1.0, 1), cloud(1, count, 1.0, 2)])
        for count in (20, 500)
    )
    for measured in (few, many):
        assert measured.ci_low < measured.accuracy < measured.ci_high
    assert many.ci_high - many.ci_low < (few.ci_high - few.ci_low) / 2


def test_the_seed_decides_the_splits():
    sets = [cloud(0, 30, 1.0, 1), cloud(1, 30, 1.0, 2)]
    first, again, other = (measure_separability(sets, seed=seed) for seed in (0, 0, 1))
    assert first.accuracy == again.accuracy
    assert (first.accuracy, first.ci_low) != (other.accuracy, other.ci_low)


@pytest.mark.parametrize("sets", [[], [cloud(0, 5, 0.1)]])
def test_fewer_than_two_sets_have_nothing_to_separate(sets):
    assert measure_separability(sets) is None


def test_equal_vectors_give_finite_numbers():
    measured = measure_separability([cloud(0, 1, 0.1).repeat(4, 1)] * 2)
    assert measured.accuracy == 0.5
    assert measured.silhouette == pytest.approx(0.0, abs=1e-3)


def test_the_silhouette_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra: rainmer[views]")
    sets = [cloud(0, 12, 0.6, 1), cloud(1, 7, 0.6, 2), cloud(2, 5, 0.6, 3)]
    labels = torch.repeat_interleave(torch.tensor([len(vectors) for vectors in sets]))
    samples = metrics.silhouette_samples(torch.cat(sets).double(), labels, metric="cosine")
    expected = [samples[(labels == index).numpy()].mean() for index in range(3)]
    assert measure_separability(sets).silhouettes.tolist() == pytest.approx(expected)
