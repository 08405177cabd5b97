import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from postroom.metrics import BatchHistogram, Instruments


@given(st.lists(st.one_of(st.sampled_from([0.0, 0.5, 1.0, 5.0]), st.integers(0, 800).map(lambda n: n / 64))))
def test_many_observations_at_once_are_as_many_one_by_one(values: list[float]) -> None:
    """The values are multiples of a power of two, so that sums do not depend on their order."""
    pages: list[bytes] = []
    for kind in (Histogram, BatchHistogram):
        registry = CollectorRegistry()
        histogram = kind("x", "X.", ["transport"], buckets=(0.5, 1, 5), registry=registry).labels("a")
        if isinstance(histogram, BatchHistogram):
            histogram.observe_many(iter(values))
        else:
            for value in values:
                histogram.observe(value)
        page = generate_latest(registry)
        pages.append(b"\n".join(line for line in page.splitlines() if b"_created" not in line))
    assert pages[0] == pages[1]


def test_a_histogram_with_labels_must_be_given_them() -> None:
    histogram = BatchHistogram("x", "X.", ["transport"], registry=CollectorRegistry())
    with pytest.raises(ValueError, match="missing label values"):
        histogram.observe_many([1.0])


def test_every_instrument_is_ours_by_name() -> None:
    registry = CollectorRegistry()
    Instruments(registry)
    names = [family.name for family in registry.collect()]
    assert len(names) == len(set(names)) >= 10
    assert all(name.startswith("postroom_") for name in names)
