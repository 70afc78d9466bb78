from sidecar.core.instants import instant, second


def test_times_have_six_digits_after_the_point():
    assert instant(1_795_223_006_000_456) == "2026-11-21T01:03:26.000456Z"
    assert second(0) == b"1970-01-01T00:00:00."
