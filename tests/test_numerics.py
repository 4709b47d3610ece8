"""The tolerances tell another order of summation from a mistake."""

import pytest
import torch

from tests.numerics import assert_same_sum, rounding, same_rows


@pytest.mark.parametrize("scale", [1e-4, 1.0, 255.0])
@pytest.mark.parametrize("terms", [10, 1000])
def test_another_order_is_the_same_sum(scale, terms):
    generator = torch.Generator().manual_seed(0)
    values = scale * torch.randn(2000, terms, generator=generator) / terms**0.5
    one_by_one = torch.zeros(2000)
    for column in values.flip(1).unbind(1):
        one_by_one = one_by_one + column
    assert_same_sum(one_by_one, values.sum(1))
    assert_same_sum(one_by_one, values.double().sum(1).numpy())


def test_a_missing_term_is_not():
    values = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    with pytest.raises(AssertionError):
        assert_same_sum(values[:-1].sum(), values.sum(), depth=10)
    with pytest.raises(AssertionError):
        assert_same_sum(values.roll(1), values, depth=10_000)


def test_layers_add_up_as_a_random_walk():
    assert rounding(depth=100) == 10 * rounding(depth=1)
    assert rounding(depth=1, dtype=torch.float64) < 1e-14


def test_rows_may_swap_but_not_change():
    rows = torch.rand(20, 6, generator=torch.Generator().manual_seed(0)) * 100
    shuffled = rows.flip(0) * (1 + 1e-7)
    assert same_rows(shuffled, rows)
    assert same_rows(rows[:0], rows[:0])
    assert not same_rows(rows[:-1], rows)
    moved = rows.clone()
    moved[3, 2] += 0.1
    assert not same_rows(moved, rows)
    doubled = torch.cat([rows[:-1], rows[:1]])  # one row twice, another missing
    assert not same_rows(doubled, rows)
