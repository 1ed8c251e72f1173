import numpy as np
import pytest

from manyfill.quantiles import PROBABILITIES, few_note, quantiles, rank


@pytest.mark.parametrize("n", [1, 2, 3, 8, 19, 20, 21, 39, 40])
def test_quantiles_are_those_of_the_empirical_distribution(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manyfill.quantiles.AT_ONCE", 50)  # several portions
    rng = np.random.default_rng(n)
    mask = rng.random((9, 11)) < 0.4
    known = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    fills = [np.where(mask[..., None], rng.integers(0, 256, known.shape, dtype=np.uint8), known) for _ in range(n)]
    found = quantiles(fills, mask)
    for name, probability in PROBABILITIES.items():
        expected = np.quantile(np.stack(fills), probability, axis=0, method="inverted_cdf")
        assert np.array_equal(found[name], expected) and found[name].dtype == np.uint8
        assert np.array_equal(found[name][~mask], known[~mask])


def test_few_fills_have_their_extremes_for_quantiles() -> None:
    assert [rank(p, 8) for p in PROBABILITIES.values()] == [1, 4, 8]
    assert [rank(p, 1) for p in PROBABILITIES.values()] == [1, 1, 1]
    assert [rank(p, 40) for p in PROBABILITIES.values()] == [2, 20, 38]
    assert [len(few_note(n)) for n in (1, 2, 8, 20, 21, 40)] == [0, 1, 1, 1, 0, 0]
    assert "values 1, 4 and 8" in few_note(8)[0]
