from sidecar.core.instants import instant, second, us_of


def test_times_have_six_digits_after_the_point():
    assert instant(1_795_223_006_000_456) == "2026-11-21T01:03:26.000456Z"
    assert second(0) == b"1970-01-01T00:00:00."


def test_a_time_is_read_back_to_the_microsecond():
    assert us_of("2026-11-21T01:03:26.000456Z") == 1_795_223_006_000_456
    assert us_of("2026-11-21T02:03:26.000456+01:00") == 1_795_223_006_000_456
