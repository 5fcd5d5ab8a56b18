"""What may be written as a rule, what is refused, and where the message points."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from streamline.errors import ScheduleError
from streamline.features.recurrence import turns
from streamline.features.recurrence.rule_reading import asked_rule, stored_rule
from streamline.features.recurrence.terms import checked_terms
from streamline.features.recurrence.wall_clock import zone_of

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
ZONE = ZoneInfo("Europe/Paris")


def read(**rule: Any) -> dict[str, Any]:
    return asked_rule(rule, NOW, ZONE)


@pytest.mark.parametrize(
    ("rule", "stored"),
    [
        ({"cron": " */5  *  * * mon-FRI "}, {"kind": "cron", "cron": "*/5 * * * mon-FRI"}),
        ({"cron": "@Daily"}, {"kind": "cron", "cron": "0 0 * * *"}),
        ({"daily": "9:05"}, {"kind": "daily", "times": ["09:05:00"]}),
        ({"daily": ["17:30:15", time(9)]}, {"kind": "daily", "times": ["09:00:00", "17:30:15"]}),
        ({"daily": "17:30, 09:00"}, {"kind": "daily", "times": ["09:00:00", "17:30:00"]}),
        ({"weekly": "thu,Monday 09:00"}, {"kind": "weekly", "days": ["mon", "thu"], "times": ["09:00:00"]}),
        ({"weekly": "fri-mon 09:00"}, {"kind": "weekly", "days": ["mon", "fri", "sat", "sun"], "times": ["09:00:00"]}),
        ({"weekly": (["tue"], "09:00")}, {"kind": "weekly", "days": ["tue"], "times": ["09:00:00"]}),
        ({"weekly": {"days": "tue", "at": "09:00"}}, {"kind": "weekly", "days": ["tue"], "times": ["09:00:00"]}),
        ({"monthly": "15,1 09:00"}, {"kind": "monthly", "days": [1, 15], "times": ["09:00:00"]}),
        ({"monthly": "last 09:00"}, {"kind": "monthly", "days": ["last"], "times": ["09:00:00"]}),
        ({"monthly": (31, time(9))}, {"kind": "monthly", "days": [31], "times": ["09:00:00"]}),
        ({"monthly": {"day": 31, "time": "09:00"}}, {"kind": "monthly", "days": [31], "times": ["09:00:00"]}),
        ({"every": "90s"}, {"kind": "every", "seconds": 90.0, "anchor_at": NOW}),
        ({"at": NOW}, {"kind": "at", "at": NOW}),
        ({"at": "2026-06-01T09:00"}, {"kind": "at", "wall": "2026-06-01T09:00:00"}),
        ({"at": "2026-06-01T09:00+02:00"}, {"kind": "at", "at": datetime(2026, 6, 1, 7, tzinfo=UTC)}),
        ({"rrule": "freq=daily"}, {"kind": "rrule", "rrule": "FREQ=DAILY", "anchor": "2026-05-06T00:00:00"}),
        (
            {"rrule": "DTSTART:20260101T090000\nRRULE:FREQ=WEEKLY;INTERVAL=2"},
            {"kind": "rrule", "rrule": "FREQ=WEEKLY;INTERVAL=2", "dtstart": "2026-01-01T09:00:00"},
        ),
    ],
)
def test_rules_are_stored_in_one_form(rule: dict[str, Any], stored: dict[str, Any]) -> None:
    assert read(**rule) == stored
    assert stored_rule(stored) == stored_rule(read(**rule))


@pytest.mark.parametrize(
    ("rule", "pointed"),
    [
        ({"cron": "0 25 * * *"}, "25"),
        ({"cron": "0 0 * * fox"}, "fox"),
        ({"cron": "0 0 1-32 * *"}, "1-32"),
        ({"cron": "*/0 * * * *"}, "*/0"),
        ({"cron": "0 0 * 13 *"}, "13"),
        ({"cron": "R * * * *"}, "R"),
        ({"cron": "H(0-5) * * * *"}, "H(0-5)"),
        ({"cron": "0 0 , * *"}, ","),
        ({"cron": "é * * * *"}, "é"),
        ({"cron": "0 0 0 * * *"}, "0 0 0 * * *"),
        ({"cron": "* * * *"}, "* * * *"),
        ({"cron": "@reboot"}, "@reboot"),
        ({"daily": "24:00"}, "24:00"),
        ({"daily": "0930"}, "0930"),
        ({"weekly": "mon,foo 09:00"}, "foo"),
        ({"weekly": "mon 9"}, None),
        ({"weekly": "mon-tue-wed 09:00"}, "mon-tue-wed"),
        ({"rrule": "FREQ=DAILY;INTERVAL=0"}, "INTERVAL=0"),
        ({"rrule": "FREQ=DAILY;INTERVAL=-1"}, "INTERVAL=-1"),
        ({"rrule": "FREQ=DAILY;COUNT=100000"}, "COUNT=100000"),
        ({"rrule": "FREQ=DAILY;COUNT=1;UNTIL=20270101T000000"}, "FREQ=DAILY;COUNT=1;UNTIL=20270101T000000"),
        ({"rrule": "FREQ=HOURLY"}, "FREQ=HOURLY"),
        ({"rrule": "FREQ=DAILY;BYHOUR=25"}, "BYHOUR=25"),
        ({"rrule": "FREQ=DAILY;FOO=1"}, "FOO=1"),
        ({"rrule": "FREQ=DAILY;FREQ=DAILY"}, "FREQ=DAILY"),
        ({"rrule": "FREQ=DAILY;UNTIL=20270101T000000Z"}, "UNTIL=20270101T000000Z"),
        ({"rrule": "INTERVAL=2"}, "INTERVAL=2"),
        ({"rrule": "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"}, "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"),
        ({"rrule": "FREQ=DAILY\nRRULE:FREQ=WEEKLY"}, None),
        ({"rrule": "DTSTART;TZID=Europe/Paris:20260101T090000\nRRULE:FREQ=DAILY"}, None),
        ({"rrule": "DTSTART:20261301T090000 FREQ=DAILY"}, None),
        ({"rrule": 5}, None),
        ({"cron": ["* * * * *"]}, None),
        ({"cron": "* " * 200}, None),
        ({"daily": 9}, None),
        ({"daily": time(9, tzinfo=UTC)}, None),
        ({"daily": []}, None),
        ({"daily": [f"{n // 60:02}:{n % 60:02}" for n in range(300)]}, None),
        ({"weekly": 5}, None),
        ({"weekly": ([5], "09:00")}, None),
        ({"weekly": {"days": "mon", "times": "09:00", "also": 1}}, None),
        ({"monthly": "0 09:00"}, None),
        ({"monthly": "32 09:00"}, None),
        ({"monthly": (True, "09:00")}, None),
        ({"monthly": ([], "09:00")}, None),
        ({"every": "900ms"}, None),
        ({"every": "soon"}, None),
        ({"at": 5}, None),
        ({"at": "2026-02-30T09:00"}, None),
        ({}, None),
        ({"every": "1h", "daily": "09:00"}, None),
    ],
)
def test_a_refusal_names_the_rule_and_points(rule: dict[str, Any], pointed: str | None) -> None:
    with pytest.raises(ScheduleError) as caught:
        read(**rule)
    assert caught.value.field == (next(iter(rule)) if len(rule) == 1 else "rule")
    if pointed is not None:
        _, shown, marks = caught.value.message.splitlines()
        begin = marks.index("^")
        assert shown[begin : begin + marks.count("^")] == pointed


def test_what_is_shown_of_an_expression_is_printable_and_bounded() -> None:
    with pytest.raises(ScheduleError) as caught:
        read(daily="\x1b[31m\n" + "9" * 1000)
    assert len(caught.value.message.splitlines()) == 3
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 400


NO_ZONES = ["Mars/Base", "", "../UTC", "/etc/passwd", "America", "Europe/Paris\0", "x" * 200, 5, None, "\ud800", UTC]
OF_A_MACHINE = ["localtime", "posixrules", "Factory", "right/Europe/Paris", "posix/Europe/Paris"]


@pytest.mark.parametrize("name", [*NO_ZONES, *OF_A_MACHINE])
def test_an_unknown_zone_is_refused(name: Any) -> None:
    with pytest.raises(ScheduleError) as caught:
        zone_of(name)
    assert caught.value.field == "timezone"


def test_a_zone_can_be_given_as_such() -> None:
    assert zone_of(ZONE).key == "Europe/Paris"


class TestJitter:
    def document(self, jitter: Any) -> dict[str, Any]:
        terms = checked_terms({"every": "1h", "jitter": jitter}, NOW)
        return turns.born("series", "series", None, "flow", terms, None, NOW)

    def test_delays_are_spread_and_always_the_same(self) -> None:
        document = self.document("10m")
        instants = [NOW + n * timedelta(hours=1) for n in range(500)]
        delays = [turns.delay_of(document, at) for at in instants]
        assert delays == [turns.delay_of(document, at) for at in instants]
        assert timedelta() <= min(delays) < timedelta(minutes=1)
        assert timedelta(minutes=9) < max(delays) < timedelta(minutes=10)
        assert timedelta(minutes=4) < sum(delays, timedelta()) / 500 < timedelta(minutes=6)

    def test_without_one_there_is_no_delay(self) -> None:
        for jitter in (None, 0):
            assert turns.delay_of(self.document(jitter), NOW) == timedelta()


def test_ids_of_runs_tell_the_instant_in_full() -> None:
    document = {"_id": "series"}
    assert turns.run_id_of(document, NOW) == "series@2026-05-06T07:08:09Z"
    assert turns.run_id_of(document, NOW.replace(microsecond=5000)) == "series@2026-05-06T07:08:09.005Z"
    assert turns.run_id_of(document, NOW.astimezone(ZONE)) == "series@2026-05-06T07:08:09Z"
