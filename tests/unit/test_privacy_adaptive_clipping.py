import math

import numpy as np
import pytest

from privacy.adaptive_clipping import ClipRule, share_for

RULE = ClipRule(quantile=0.5, learning_rate=0.2)


def test_the_clip_grows_when_too_many_are_clipped() -> None:
    assert RULE.next_clip(2.0, clipped_fraction=1.0) == pytest.approx(2 * math.exp(0.1))
    assert RULE.next_clip(2.0, clipped_fraction=0.0) == pytest.approx(2 * math.exp(-0.1))
    assert RULE.next_clip(2.0, clipped_fraction=0.5) == 2.0


def test_noise_beyond_the_range_counts_as_its_end() -> None:
    assert RULE.next_clip(2.0, clipped_fraction=40.0) == RULE.next_clip(2.0, clipped_fraction=1.0)
    assert RULE.next_clip(2.0, clipped_fraction=-40.0) == RULE.next_clip(2.0, clipped_fraction=0.0)


@pytest.mark.parametrize(("start", "quantile"), [(0.01, 0.5), (100.0, 0.5), (1.0, 0.9)])
def test_the_clip_finds_the_quantile_under_noise(start: float, quantile: float) -> None:
    generator = np.random.default_rng(1)
    norms = np.exp(generator.normal(0, 0.7, 500))
    rule, clip, seen = ClipRule(quantile, 0.2), start, []

    for _ in range(300):
        clip = rule.next_clip(clip, float((norms > clip).mean() + generator.normal(0, 0.05)))
        seen.append(clip)

    settled = math.exp(np.mean(np.log(seen[150:])))
    assert settled == pytest.approx(np.quantile(norms, quantile), rel=0.1)


def test_the_share_of_one_count_is_the_papers() -> None:
    z, count_noise = 1.3, 5.0
    papers_multiplier = (z**-2 - (2 * count_noise) ** -2) ** -0.5

    assert z / math.sqrt(1 - share_for(count_noise, z, metrics=1)) == pytest.approx(papers_multiplier)
