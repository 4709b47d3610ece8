"""The published properties of the three sets that Rainmer trains on, as summaries.

Source: the alignment study of Rainmer (ACM MM 2024).
"""

from __future__ import annotations

from collections.abc import Mapping

from rainmer.align.measure import SetSummary

__all__ = ["PUBLISHED_SUMMARIES"]

_SETS = (
    SetSummary(
        name="SynRain",
        pairs=13711,
        distinct_clean=13711,
        clean_entropy_sum=46702.31,
        rainy_entropy_sum=47908.31,
        clean_entropy=3.4062,
        rainy_entropy=3.4942,
        density=0.12935,
        gradient=6.0692,
        gradient_pairs=13711,
        clean_luminance=107.768,
        rainy_luminance=128.288,
        colourfulness=2.4327,
        colourfulness_pairs=13711,
        psnr_db=22.2105,
        rain_density=0.1290,
        rain_density_min=0.0131,
        rain_density_max=0.5983,
        rain_density_counts=(460, 3664, 3053, 2934, 1486, 919, 592, 294, 176, 80),
    ),
    SetSummary(
        name="GT-Rain",
        pairs=26124,
        distinct_clean=89,
        clean_entropy_sum=273.947,
        rainy_entropy_sum=75683.78,
        clean_entropy=3.0781,
        rainy_entropy=2.8971,
        density=0.14034,
        gradient=9.5969,
        gradient_pairs=26124,
        clean_luminance=92.261,
        rainy_luminance=100.071,
        colourfulness=4.4677,
        colourfulness_pairs=26124,
        psnr_db=23.6659,
        rain_density=0.1397,
        rain_density_min=0.0188,
        rain_density_max=0.3585,
        rain_density_counts=(989, 5071, 5005, 5432, 5233, 1700, 1780, 614, 300, 0),
    ),
    SetSummary(
        name="GTAV-balance",
        pairs=12321,
        distinct_clean=3201,
        clean_entropy_sum=5873.096,
        rainy_entropy_sum=21653.24,
        clean_entropy=1.8348,
        rainy_entropy=1.7574,
        density=0.09914,
        gradient=9.2553,
        gradient_pairs=12319,
        clean_luminance=26.645,
        rainy_luminance=27.950,
        colourfulness=5.0210,
        colourfulness_pairs=12319,
        psnr_db=33.3852,
        rain_density=0.0971,
        rain_density_min=0.0057,
        rain_density_max=0.5701,
        rain_density_counts=(439, 2842, 6247, 2019, 632, 106, 9, 4, 2, 7),
    ),
)

PUBLISHED_SUMMARIES: Mapping[str, SetSummary] = {summary.name: summary for summary in _SETS}
"""Summaries by name of the set."""
