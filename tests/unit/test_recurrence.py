"""When something recurs: a table of zones, transitions and policies, held against a walk through every minute."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from functools import cache
from itertools import islice, pairwise, takewhile
from typing import Any

import pytest
from cronsim import CronSim

from streamline.features.recurrence.recurrence import Recurrence
from streamline.features.recurrence.rule_reading import asked_rule, stored_rule
from streamline.features.recurrence.wall_clock import Occurrence, zone_of
from tests.unit.minute_walk import TRANSITIONS, Walk

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PLACES = [pytest.param(zone, day, id=f"{zone.partition('/')[2]}-{day:%Y-%m-%d}") for zone, day in TRANSITIONS]
# Cronsim steps by whole hours of real time and goes past times where a clock was moved by less, or by a day.
WHOLE_HOURS = [
    place for place in PLACES if place.values[0] not in ("Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia")
]
POLICIES = [("forward", "first"), ("skip", "second"), ("forward", "both")]


def recurrence(zone: str, gap: str = "forward", fold: str = "first", now: datetime = NOW, **rule: Any) -> Recurrence:
    place = zone_of(zone)
    return Recurrence(stored_rule(asked_rule(rule, now, place)), place, gap, fold)  # type: ignore[arg-type]


def between(series: Recurrence, begin: datetime, end: datetime) -> list[Occurrence]:
    return list(takewhile(lambda each: each.at <= end, series.after(begin)))


@cache
def walk(zone: str, day: datetime) -> Walk:
    return Walk(zone_of(zone), day)


TIMES = ("00:00", "01:30", "02:10", "02:30", "03:00")


@pytest.mark.parametrize(("gap", "fold"), POLICIES)
@pytest.mark.parametrize(("zone", "day"), PLACES)
def test_every_time_of_day_around_a_transition(zone: str, day: datetime, gap: str, fold: str) -> None:
    oracle = walk(zone, day)
    for text in TIMES:
        at = time.fromisoformat(text)
        rules: list[tuple[dict[str, Any], Callable[[datetime], bool]]] = [
            ({"daily": text}, lambda wall: True),
            ({"weekly": f"sat-mon {text}"}, lambda wall: wall.weekday() in (5, 6, 0)),
            ({"monthly": f"{day.day},31 {text}"}, lambda wall: wall.day == day.day or (wall + DAY).day == 1),
            ({"cron": f"{at.minute} {at.hour} * * *"}, lambda wall: True),
            ({"rrule": f"FREQ=DAILY;BYHOUR={at.hour};BYMINUTE={at.minute}"}, lambda wall: True),
        ]
        for rule, is_wanted in rules:
            wanted = [wall for wall in oracle.walls_at(at) if is_wanted(wall)]
            series = recurrence(zone, gap, fold, now=datetime(1980, 1, 1, tzinfo=UTC), **rule)
            found = [each.at for each in between(series, oracle.begin, oracle.end)]
            assert found == oracle.expected(wanted, gap, fold), (rule, gap, fold)


FIXED = ["30 2 * * *", "0 1-4 * * *", "15,45 1,2 * * *", "30 2 * * 6,0", "0 0 1,8,15 * mon", "0 0 * * *", "59 23 L * *"]
RHYTHMS = ["*/5 * * * *", "*/20 1-3 * * *", "0 * * * *", "30 * * * *", "0 */2 * * *", "15 */3 * * sun"]


@pytest.mark.parametrize("expression", FIXED)
@pytest.mark.parametrize(("zone", "day"), PLACES)
def test_cron_expressions_of_fixed_times_agree_with_cronsim(zone: str, day: datetime, expression: str) -> None:
    """Cronsim lets what falls into a gap run at the gap's end, and twice where something else runs then."""
    place, (begin, end) = zone_of(zone), (walk(zone, day).begin, walk(zone, day).end)
    naive = CronSim(expression, (begin - 2 * DAY).replace(tzinfo=None))
    walls = set(takewhile(lambda wall: wall < (end + 2 * DAY).replace(tzinfo=None), naive))
    simulated = takewhile(lambda at: at <= end, CronSim(expression, begin.astimezone(place)))
    wanted = [at.astimezone(UTC) for at in simulated if at.replace(tzinfo=None, fold=0) in walls]
    found = between(recurrence(zone, gap="skip", cron=expression), begin, end)
    assert [each.at for each in found] == sorted(set(wanted))


@pytest.mark.parametrize("expression", RHYTHMS)
@pytest.mark.parametrize(("zone", "day"), PLACES)
def test_cron_expressions_of_a_rhythm_go_by_real_time_whatever_the_policy(
    zone: str, day: datetime, expression: str
) -> None:
    oracle = walk(zone, day)
    first, last = (instant.replace(tzinfo=None) for instant in (oracle.begin - 2 * DAY, oracle.end + 2 * DAY))
    wanted = oracle.expected(list(takewhile(lambda wall: wall < last, CronSim(expression, first))), "skip", "both")
    for gap, fold in POLICIES[:2]:
        found = between(recurrence(zone, gap, fold, cron=expression), oracle.begin, oracle.end)
        assert [each.at for each in found] == wanted


@pytest.mark.parametrize("expression", RHYTHMS)
@pytest.mark.parametrize(("zone", "day"), WHOLE_HOURS)
def test_cron_expressions_of_a_rhythm_agree_with_cronsim(zone: str, day: datetime, expression: str) -> None:
    begin, end = walk(zone, day).begin, walk(zone, day).end
    simulated = [
        at.astimezone(UTC)
        for at in takewhile(lambda at: at.astimezone(UTC) <= end, CronSim(expression, begin.astimezone(zone_of(zone))))
    ]
    assert [each.at for each in between(recurrence(zone, cron=expression), begin, end)] == simulated


@pytest.mark.parametrize(("zone", "day"), PLACES)
def test_it_makes_no_difference_in_which_season_one_asks(zone: str, day: datetime) -> None:
    begin, end = day.replace(tzinfo=UTC) - 3 * DAY, day.replace(tzinfo=UTC) + 3 * DAY
    for rule in ({"daily": "02:15"}, {"cron": "15 1 * * *"}, {"monthly": f"{day.day} 02:30"}, {"weekly": "sun 01:30"}):
        for fold in ("first", "second", "both"):
            series = recurrence(zone, "forward", fold, **rule)
            wanted = between(series, begin, end)
            for months in (1, 6, 12):
                asked = begin - months * 30 * DAY
                assert [each for each in between(series, asked, end) if each.at > begin] == wanted


@pytest.mark.parametrize(
    ("zone", "wall", "at"),
    [
        ("UTC", "2026-01-01T00:00", "2026-01-01T00:00"),
        ("America/New_York", "2026-07-04T00:00", "2026-07-04T04:00"),
        ("America/New_York", "2026-12-31T23:59", "2027-01-01T04:59"),
        ("America/Los_Angeles", "2026-12-31T23:30", "2027-01-01T07:30"),
        ("America/Phoenix", "2026-03-08T02:30", "2026-03-08T09:30"),
        ("America/Phoenix", "2026-11-01T01:30", "2026-11-01T08:30"),
        ("Asia/Kolkata", "2028-02-29T05:29", "2028-02-28T23:59"),
        ("Asia/Kathmandu", "2026-01-01T05:45", "2026-01-01T00:00"),
        ("Asia/Singapore", "2028-02-29T12:00", "2028-02-29T04:00"),
    ],
)
def test_what_a_wall_shows_is_an_instant(zone: str, wall: str, at: str) -> None:
    expected = datetime.fromisoformat(at).replace(tzinfo=UTC)
    shown = datetime.fromisoformat(wall)
    day = f"{shown:%Y%m%dT%H%M%S}"
    for rule in ({"at": wall}, {"daily": f"{shown:%H:%M}"}, {"rrule": f"DTSTART:{day}\nFREQ=DAILY;COUNT=1"}):
        found = recurrence(zone, now=datetime(2020, 1, 1, tzinfo=UTC), **rule).first(expected - timedelta(seconds=1))
        assert found == Occurrence(expected, shown), rule


def test_every_instant_can_be_the_one_from_which_one_goes_on() -> None:
    """Going on from each occurrence, one at a time, gives the series: no instant is lost or repeated."""
    for zone, day in TRANSITIONS[::2]:
        begin, end = day.replace(tzinfo=UTC) - DAY, day.replace(tzinfo=UTC) + 2 * DAY
        for fold in ("first", "second", "both"):
            series = recurrence(zone, "forward", fold, cron="0,30 0-4,23 * * *")
            wanted, at, found = between(series, begin, end), begin, []
            while (following := series.first(at)) is not None and following.at <= end:
                found.append(following)
                at = following.at
            assert found == wanted


def test_marks_and_walls_are_told() -> None:
    spring = recurrence("America/New_York", daily="02:30").first(datetime(2026, 3, 8, tzinfo=UTC))
    assert spring == Occurrence(datetime(2026, 3, 8, 7, 30, tzinfo=UTC), datetime(2026, 3, 8, 2, 30), "gap")
    autumn = recurrence("America/New_York", fold="both", daily="01:30").after(datetime(2026, 11, 1, tzinfo=UTC))
    assert list(islice(autumn, 3)) == [
        Occurrence(datetime(2026, 11, 1, 5, 30, tzinfo=UTC), datetime(2026, 11, 1, 1, 30), "fold_first"),
        Occurrence(datetime(2026, 11, 1, 6, 30, tzinfo=UTC), datetime(2026, 11, 1, 1, 30), "fold_second"),
        Occurrence(datetime(2026, 11, 2, 6, 30, tzinfo=UTC), datetime(2026, 11, 2, 1, 30)),
    ]


def test_a_day_that_did_not_occur_shares_the_next_ones_occurrence() -> None:
    series = recurrence("Pacific/Apia", daily="09:00")
    found = between(series, datetime(2011, 12, 28, 12, tzinfo=UTC), datetime(2012, 1, 1, tzinfo=UTC))
    assert [each.wall.day for each in found] == [28, 29, 31, 1]
    assert {later.at - sooner.at for sooner, later in pairwise(found)} == {DAY}
    assert all(each.mark is None for each in found)


def test_what_is_moved_out_of_a_gap_does_not_double_what_is_there() -> None:
    series = recurrence("America/New_York", cron="30 2,3 * * *")
    found = between(series, datetime(2026, 3, 8, 5, tzinfo=UTC), datetime(2026, 3, 8, 12, tzinfo=UTC))
    assert [(each.at.hour, each.mark) for each in found] == [(7, None)]


def test_what_is_moved_out_of_a_gap_comes_in_order() -> None:
    series = recurrence("America/New_York", cron="15,45 2,3 8 3 *")
    found = [each.at for each in islice(series.after(datetime(2026, 3, 1, tzinfo=UTC)), 3)]
    assert found == [
        datetime(2026, 3, 8, 7, 15, tzinfo=UTC),
        datetime(2026, 3, 8, 7, 45, tzinfo=UTC),
        datetime(2027, 3, 8, 7, 15, tzinfo=UTC),
    ]
    series = recurrence("America/New_York", daily=("03:00", "02:45"))
    day = between(series, datetime(2026, 3, 8, 5, tzinfo=UTC), datetime(2026, 3, 8, 23, tzinfo=UTC))
    assert [(f"{each.at:%H:%M}", each.mark) for each in day] == [("07:00", None), ("07:45", "gap")]


def test_monthly_days_are_clamped_and_do_not_drift() -> None:
    series = recurrence("UTC", monthly="31 09:00")
    found = [each.at for each in islice(series.after(datetime(2027, 12, 31, 12, tzinfo=UTC)), 13)]
    assert [at.day for at in found] == [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31]
    both = recurrence("UTC", monthly=([29, 30, "last"], "09:00")).after(datetime(2026, 1, 31, 12, tzinfo=UTC))
    assert [(each.at.month, each.at.day) for each in islice(both, 4)] == [(2, 28), (3, 29), (3, 30), (3, 31)]
    leap = recurrence("UTC", cron="0 0 29 2 *").after(NOW)
    assert [each.at.year for each in islice(leap, 2)] == [2028, 2032]


def test_every_is_in_real_time_and_keeps_its_anchor() -> None:
    anchor = datetime(2026, 3, 7, 12, 0, 0, 250_000, tzinfo=UTC)
    series = recurrence("America/New_York", now=anchor, every="8h")
    found = [each.at for each in islice(series.after(anchor), 4)]
    assert found == [anchor + n * 8 * HOUR for n in (1, 2, 3, 4)]
    far = anchor + timedelta(days=30_000)
    assert series.first(far).at == far + 8 * HOUR  # type: ignore[union-attr]
    assert series.first(anchor - DAY).at == anchor + 8 * HOUR  # type: ignore[union-attr]


def test_once_is_once() -> None:
    at = datetime(2026, 6, 1, 9, tzinfo=UTC)
    assert [each.at for each in recurrence("UTC", at=at).after(NOW)] == [at]
    assert recurrence("UTC", at=at).first(at) is None
    wall = recurrence("Asia/Kathmandu", at="2026-06-01T09:00")
    assert [each.at for each in wall.after(NOW)] == [datetime(2026, 6, 1, 3, 15, tzinfo=UTC)]
    assert list(recurrence("America/New_York", gap="skip", at="2026-03-08T02:30").after(NOW)) == []


def test_recurrence_rules_keep_to_the_wall_and_end() -> None:
    series = recurrence("Europe/London", rrule="DTSTART:20260327T013000\nRRULE:FREQ=DAILY;COUNT=4")
    found = list(series.after(NOW))
    assert [f"{each.at:%d %H:%M}" for each in found] == ["27 01:30", "28 01:30", "29 01:30", "30 00:30"]
    assert [each.mark for each in found] == [None, None, "gap", None]
    fridays = recurrence("UTC", rrule="FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=9;BYMINUTE=0").after(NOW)
    assert [each.at.day for each in islice(fridays, 3)] == [30, 27, 27]


def test_a_recurrence_rule_of_long_ago_need_not_be_gone_through() -> None:
    times = f"BYHOUR={','.join(map(str, range(12)))};BYMINUTE={','.join(map(str, range(0, 60, 5)))}"
    for begin in ("DTSTART:00010101T000000\n", "DTSTART:00010103T000000\n", "DTSTART:00040229T000000\n"):
        for rule in (f"FREQ=DAILY;{times}", f"FREQ=WEEKLY;INTERVAL=3;BYDAY=MO,TU,WE,TH,FR,SA,SU;{times}"):
            assert recurrence("UTC", rrule=begin + rule).first(NOW) is not None
        yearly = recurrence("UTC", rrule=f"{begin}FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR,SA,SU;{times}").first(NOW)
        assert yearly == Occurrence(NOW + timedelta(minutes=5), datetime(2026, 1, 1, 0, 5))


def test_the_ends_of_the_calendar_can_be_asked_about() -> None:
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    for rule in ({"daily": "09:00"}, {"weekly": "mon 09:00"}, {"monthly": "31 09:00"}, {"cron": "0 9 * * *"}):
        for zone in ("Pacific/Apia", "America/New_York"):
            assert recurrence(zone, **rule).first(first) is not None
            assert recurrence(zone, **rule).first(last) is None
    for rule in ({"every": "1h"}, {"rrule": "FREQ=DAILY"}, {"at": NOW}, {"at": "2026-01-01"}):
        assert recurrence("UTC", **rule).first(first) is not None
        assert recurrence("UTC", **rule).first(last) is None


def test_until_is_the_last_instant() -> None:
    until = datetime(2026, 1, 3, 9, tzinfo=UTC)
    series = recurrence("UTC", daily="09:00")
    limited = Recurrence(series.rule, series.zone, until=until)
    assert [each.at.day for each in limited.after(NOW)] == [1, 2, 3]


@pytest.mark.parametrize("rule", [{"cron": "* * * * *"}, {"daily": "09:00"}, {"every": "1s"}, {"monthly": "31 09:00"}])
@pytest.mark.parametrize("limit", [1, 7])
def test_the_latest_are_found_without_going_through_all(rule: dict[str, Any], limit: int) -> None:
    series, until = recurrence("UTC", **rule), datetime(2026, 9, 30, 8, 59, 59, tzinfo=UTC)
    after = until - 8 * DAY if "every" in rule else NOW
    found = [each.at for each in series.latest(after, until, limit)]
    assert found == sorted(found)
    assert len(found) == limit
    assert series.first(found[-1]).at > until  # type: ignore[union-attr]
    assert [each.at for each in islice(series.after(found[0] - timedelta(milliseconds=1)), limit)] == found


def test_the_latest_of_a_short_time_are_all_there_are() -> None:
    series = recurrence("UTC", daily="09:00")
    found = series.latest(NOW, NOW + 3 * DAY, 1000)
    assert [each.at.day for each in found] == [1, 2, 3]
    assert series.latest(NOW, NOW + HOUR, 1) == []


def test_a_series_ends_before_the_calendar_does() -> None:
    for rule in ({"daily": "09:00"}, {"every": "24h"}, {"cron": "0 9 * * *"}, {"monthly": "31 09:00"}):
        series = recurrence("America/New_York", **rule)
        found = list(series.after(datetime(9899, 12, 25, tzinfo=UTC)))
        assert len(found) <= 8
