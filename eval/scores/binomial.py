"""How large a share can be of which a few cases were seen: the exact binomial bound."""

from __future__ import annotations

from scipy.stats import beta

__all__ = ["upper_bound"]


def upper_bound(cases: int, total: int, level: float = 0.95) -> float:
    """Return the upper end of the one-sided exact interval of a share (Clopper and Pearson, 1934).

    Args:
        cases: How often it was seen.
        total: Among how many; at least one.
        level: With what confidence the share is no larger, 0..1.

    Example:
        >>> round(upper_bound(0, 100), 4)
        0.0295
    """
    return 1.0 if cases >= total else float(beta.ppf(level, cases + 1, total - cases))
