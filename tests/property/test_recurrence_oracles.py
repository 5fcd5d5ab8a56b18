"""Random rules: against cronsim where no clock is moved, against a walk through every minute where one is."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from functools import cache
from itertools import islice, takewhile
from typing import Any

from cronsim import CronSim, CronSimError
from dateutil.rrule import rrulestr
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from streamline.errors import ScheduleError
from streamline.features.recurrence.recurrence import Recurrence
from streamline.features.recurrence.rule_reading import asked_rule, stored_rule
from streamline.features.recurrence.text_rrule import TextRule, text_rule_of
from streamline.features.recurrence.wall_clock import zone_of
from tests.unit.minute_walk import TRANSITIONS, Walk

NOW = datetime(2000, 1, 1, tzinfo=UTC)


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    a_range = st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}")
    step = st.integers(1, high)
    return st.one_of(
        st.just("*"),
        number.map(str),
        a_range,
        st.lists(number, min_size=1, max_size=3).map(lambda each: ",".join(map(str, each))),
        step.map(lambda n: f"*/{n}"),
        # Cronsim takes a range of one with a step for one without an end.
        st.tuples(a_range.filter(lambda text: len(set(text.split("-"))) == 2), step).map(
            lambda both: f"{both[0]}/{both[1]}"
        ),
    )


CRON = st.tuples(field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6)).map(" ".join)
INSTANT = st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)).map(lambda at: at.replace(microsecond=0))
CLOCK = st.tuples(st.integers(0, 4), st.sampled_from(range(0, 60, 5))).map(lambda at: f"{at[0]:02}:{at[1]:02}")


@cache
def walk(place: tuple[str, datetime]) -> Walk:
    return Walk(zone_of(place[0]), place[1])


def recurrence(zone: str, gap: Any = "forward", fold: Any = "first", **rule: Any) -> Recurrence:
    place = zone_of(zone)
    return Recurrence(stored_rule(asked_rule(rule, NOW, place)), place, gap, fold)


@settings(max_examples=100, deadline=None)
@given(CRON, INSTANT)
def test_cron_agrees_with_cronsim(expression: str, begin: datetime) -> None:
    try:
        simulated = list(islice(CronSim(expression, begin), 5))
    except (CronSimError, RuntimeError):
        assume(False)
    found = islice(recurrence("UTC", cron=expression).after(begin.replace(tzinfo=UTC)), 5)
    assert [each.at.replace(tzinfo=None) for each in found] == simulated


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(TRANSITIONS),
    st.lists(CLOCK, min_size=1, max_size=4, unique=True),
    st.sampled_from(["forward", "skip"]),
    st.sampled_from(["first", "second", "both"]),
    st.integers(-26 * 60, 26 * 60),
)
def test_times_of_day_agree_with_the_walk_from_any_minute_on(
    place: tuple[str, datetime], times: list[str], gap: str, fold: str, minutes: int
) -> None:
    oracle = walk(place)
    wanted = [wall for text in times for wall in oracle.walls_at(time.fromisoformat(text))]
    begin = place[1].replace(tzinfo=UTC) + timedelta(minutes=minutes)
    found = takewhile(lambda each: each.at <= oracle.end, recurrence(place[0], gap, fold, daily=times).after(begin))
    assert [each.at for each in found] == [at for at in oracle.expected(wanted, gap, fold) if at > begin]


DAYS = st.lists(st.sampled_from(["MO", "TU", "WE", "TH", "FR", "SA", "SU"]), min_size=1, max_size=3, unique=True)
PARTS = st.fixed_dictionaries(
    {"FREQ": st.sampled_from(["YEARLY", "MONTHLY", "WEEKLY", "DAILY"])},
    optional={
        "INTERVAL": st.integers(1, 13),
        "BYDAY": DAYS.map(",".join),
        "BYMONTHDAY": st.sampled_from(["1", "31", "-1", "15,-2"]),
        "BYHOUR": st.just("3,9"),
        "BYSETPOS": st.sampled_from([1, -1, 2]),
        "WKST": st.sampled_from(["SU", "WE"]),
        "UNTIL": st.just("20330101T000000"),
        "COUNT": st.integers(1, 40),
    },
).filter(lambda parts: not parts.keys() >= {"COUNT", "UNTIL"})


@settings(max_examples=150, deadline=None)
@given(
    PARTS, st.one_of(st.datetimes(datetime(2012, 1, 1), datetime(2019, 1, 1)), st.just(datetime(2016, 2, 29))), INSTANT
)
def test_a_recurrence_rule_goes_on_as_from_its_first_time(parts: dict[str, Any], first: datetime, at: datetime) -> None:
    text, first = ";".join(f"{name}={value}" for name, value in parts.items()), first.replace(microsecond=0)
    begin, end = at.replace(tzinfo=None), datetime(2042, 1, 1)
    try:
        text_rule_of(text, first)
    except ScheduleError:
        reject()  # no day ever matches: dateutil would look for one until the year 9999
    rule: Any = rrulestr(text, dtstart=first)
    wanted = list(islice(takewhile(lambda wall: wall < end, rule.xafter(begin, inc=True)), 5))
    assert list(islice(takewhile(lambda wall: wall < end, TextRule(text, first).walls(begin)), 5)) == wanted


@settings(max_examples=40, deadline=None)
@given(CRON, INSTANT, st.integers(1, 40), st.integers(1, 60))
def test_the_latest_are_the_end_of_all(expression: str, begin: datetime, days: int, limit: int) -> None:
    series, after = recurrence("Europe/London", cron=expression), begin.replace(tzinfo=UTC)
    until = after + timedelta(days=days)
    everything = list(islice(takewhile(lambda each: each.at <= until, series.after(after)), 3000))
    assume(len(everything) < 3000)
    assert series.latest(after, until, limit) == everything[-limit:]
