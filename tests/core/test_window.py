from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.window import CALENDARS, Window, calendar_window, length_window

# Half-hour shifts, a quarter-hour offset, DST turned round by Ramadan, a day that was skipped, changes at midnight.
HARD_ZONES = ("UTC", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia",
              "America/St_Johns", "America/Havana", "Asia/Beirut")  # fmt: skip
HOUR_US = 3_600_000_000
instants = st.integers(
    int(datetime(1971, 1, 2, tzinfo=UTC).timestamp()), int(datetime(2099, 1, 1, tzinfo=UTC).timestamp())
).map(lambda second: second * 1_000_000 + second % 999_983)
anchors = st.just(0) | instants


def at(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 1_000_000


def month(now: str, anchor: str = "", zone: str = "UTC") -> tuple[str, str, str]:
    return shown(calendar_window("month", zone, at(anchor, zone) if anchor else 0, at(now, zone)), zone)


def shown(window: Window, zone: str = "UTC") -> tuple[str, str, str]:
    bounds = [datetime.fromtimestamp(us // 1_000_000, ZoneInfo(zone)) for us in window[1:]]
    return window.id, f"{bounds[0]:%Y-%m-%d %H:%M}", f"{bounds[1]:%Y-%m-%d %H:%M}"


# Fails if the window is taken from the wall clock alone.
@given(st.sampled_from(CALENDARS), st.sampled_from(HARD_ZONES), anchors, instants)
def test_windows_tile_time_without_gap_or_overlap(calendar, zone, anchor_us, now_us):
    window = calendar_window(calendar, zone, anchor_us, now_us)
    assert window.start_us <= now_us < window.end_us
    assert calendar_window(calendar, zone, anchor_us, window.start_us) == window
    assert calendar_window(calendar, zone, anchor_us, window.end_us - 1) == window
    following = calendar_window(calendar, zone, anchor_us, window.end_us)
    assert following.start_us == window.end_us
    assert following.id != window.id


@given(st.integers(1000, 10**12), st.integers(0, 2**52))
def test_windows_of_a_length_tile_time(period_us, now_us):
    window = length_window(period_us, now_us)
    assert window.start_us <= now_us < window.end_us == window.start_us + period_us
    assert length_window(period_us, window.end_us).start_us == window.end_us
    assert length_window(period_us, window.end_us).id != window.id


@pytest.mark.parametrize(
    ("calendar", "anchor_us", "name"),
    [
        ("hour", 0, "2026-11-21T05"),
        ("day", 0, "2026-11-21"),
        ("week", 0, "2026-W47"),
        ("month", 0, "2026-11"),
        ("year", 0, "2026"),
        ("month", at("2026-01-17T00:00"), "2026-11@17"),
        ("year", at("2026-03-17T00:00"), "2026@03-17"),
    ],
)
def test_a_window_has_a_name_that_people_read(calendar, anchor_us, name):
    assert calendar_window(calendar, "UTC", anchor_us, at("2026-11-21T05:30")).id == name


def test_a_length_names_its_seconds_and_its_number():
    assert length_window(60_000_000, 1_763_689_406_123_456).id == "s60:29394823"
    assert length_window(1_500_000, 1_500_000).id == "u1500000:1"


# envoyproxy/ratelimit, limits: a month of 30 days
# Fails if a month is 30 days.
def test_a_month_is_a_calendar_month():
    assert month("2026-02-10T12:00") == ("2026-02", "2026-02-01 00:00", "2026-03-01 00:00")
    assert month("2024-02-29T23:59") == ("2024-02", "2024-02-01 00:00", "2024-03-01 00:00")
    assert month("2026-12-31T23:59") == ("2026-12", "2026-12-01 00:00", "2027-01-01 00:00")


# Fails if the clamped day is taken from the window before instead of from the anchor.
def test_a_month_from_the_31st_begins_on_the_last_day_of_a_short_month_and_goes_back_to_the_31st():
    assert month("2026-02-10T00:00", "2026-01-31T00:00") == ("2026-01@31", "2026-01-31 00:00", "2026-02-28 00:00")
    assert month("2026-03-30T00:00", "2026-01-31T00:00") == ("2026-02@31", "2026-02-28 00:00", "2026-03-31 00:00")
    assert month("2026-04-30T00:00", "2026-01-31T00:00") == ("2026-04@31", "2026-04-30 00:00", "2026-05-31 00:00")


def test_a_month_begins_at_the_subscription_s_own_time_of_day():
    assert month("2026-11-17T13:44", "2025-08-17T13:45")[0] == "2026-10@17"
    assert month("2026-11-17T13:45", "2025-08-17T13:45")[0] == "2026-11@17"


def test_a_year_from_february_29_begins_on_the_28th_between_leap_years():
    window = calendar_window("year", "UTC", at("2024-02-29T00:00"), at("2026-06-01T00:00"))
    assert shown(window) == ("2026@02-29", "2026-02-28 00:00", "2027-02-28 00:00")
    window = calendar_window("year", "UTC", at("2024-02-29T00:00"), at("2028-06-01T00:00"))
    assert shown(window) == ("2028@02-29", "2028-02-29 00:00", "2029-02-28 00:00")


def test_a_week_begins_on_monday_and_is_numbered_as_iso_8601_says():
    assert shown(calendar_window("week", "UTC", 0, at("2027-01-02T00:00"))) == (
        "2026-W53", "2026-12-28 00:00", "2027-01-04 00:00",
    )  # fmt: skip
    assert calendar_window("week", "UTC", at("2026-11-18T00:00"), at("2026-11-21T00:00")).id == "2026-W47@3"


@pytest.mark.parametrize(("day", "hours"), [("2026-03-08", 23), ("2026-11-01", 25), ("2026-06-01", 24)])
def test_a_day_of_new_york_has_23_24_or_25_hours(day, hours):
    window = calendar_window("day", "America/New_York", 0, at(f"{day}T12:00", "America/New_York"))
    assert window.end_us - window.start_us == hours * HOUR_US


def test_an_hour_that_the_wall_clock_repeats_is_one_window():
    starts = at("2026-11-01T01:00", "America/New_York")
    windows = {calendar_window("hour", "America/New_York", 0, starts + n * HOUR_US // 2) for n in range(4)}
    assert windows == {Window("2026-11-01T01", starts, starts + 2 * HOUR_US)}


def test_an_hour_that_the_wall_clock_skips_is_no_window():
    before = calendar_window("hour", "America/New_York", 0, at("2026-03-08T01:59", "America/New_York"))
    after = calendar_window("hour", "America/New_York", 0, before.end_us)
    assert (before.id, after.id) == ("2026-03-08T01", "2026-03-08T03")


def test_the_day_that_apia_skipped_is_no_window():
    days = [calendar_window("day", "Pacific/Apia", 0, at("2011-12-29T12:00", "Pacific/Apia"))]
    days += [calendar_window("day", "Pacific/Apia", 0, days[0].end_us)]
    assert [day.id for day in days] == ["2011-12-29", "2011-12-31"]
    assert all(one.end_us == other.start_us for one, other in pairwise(days))


# St. John's went from 00:01 back to 23:01: the 7th had begun, and the clock showed the 6th once more.
# Fails if a window is not looked for after the one that the wall clock shows.
def test_a_day_that_has_begun_is_not_taken_back():
    begins = at("2010-11-07T00:00", "America/St_Johns")
    days = [calendar_window("day", "America/St_Johns", 0, begins + minutes * 60_000_000) for minutes in (-1, 0, 30, 90)]
    assert [day.id for day in days] == ["2010-11-06", "2010-11-07", "2010-11-07", "2010-11-07"]


# Toronto went from 23:30 to 00:30: no clock showed midnight.
# Fails if a window is not looked for before the one that the wall clock shows.
def test_a_midnight_that_no_clock_showed_is_read_with_the_offset_before_it():
    gap = at("1919-03-30T23:29", "America/Toronto") + 60_000_000
    days = [calendar_window("day", "America/Toronto", 0, gap + minutes * 60_000_000) for minutes in (-1, 10, 29, 30)]
    assert [day.id for day in days] == ["1919-03-30"] * 3 + ["1919-03-31"]
    assert days[1].end_us == days[3].start_us


def test_a_zone_shifts_the_month_by_its_offset():
    window = calendar_window("month", "Asia/Kathmandu", 0, at("2026-11-21T00:00"))
    assert window.start_us == at("2026-10-31T18:15")


def test_a_calendar_that_is_none_is_named_in_the_error():
    with pytest.raises(ValueError, match="no such calendar: 'decade'; one of hour, day, week, month, year"):
        calendar_window("decade", "UTC", 0, 0)
