"""What may be chosen about reports, and what is refused."""

from typing import Any

import pytest

from postroom.envelopes import Report
from postroom.errors import ConfigurationError
from postroom.reports.policy import ReportPolicy
from postroom.reports.wording import TemplateWording


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("linger", -1),
        ("delay_after", -0.1),
        ("max_original", -1),
        ("max_wait", -1),
        ("per_hour", 0),
        ("callback_timeout", 0),
        ("deliver", "mail"),
        ("kinds", {"never"}),
        ("kinds", 5),
        ("postmaster", "nobody"),
        ("author", "x@@example.org"),
        ("reporting_mta", "not a domain"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ReportPolicy(**{field: value})
    assert caught.value.field == field


def test_what_is_left_open_follows_from_the_host() -> None:
    policy = ReportPolicy(kinds={"failure"}, postmaster="Keeper <keeper@Example.ORG>")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - callers may be untyped
    assert policy.kinds == {Report.FAILURE}
    assert policy.postmaster == "keeper@example.org"
    assert policy.host("mail.example.org") == "mail.example.org"
    assert policy.author_at("mail.example.org") == "Mail Delivery System <postmaster@mail.example.org>"
    assert ReportPolicy(reporting_mta="Bücher.example").host("x") == "xn--bcher-kva.example"
    assert ReportPolicy(author="Post <p@example.org>").author_at("x") == "Post <p@example.org>"


@pytest.mark.parametrize(
    ("sender", "reached"),
    [
        ("app@example.org", True),
        ("ünal@example.org", True),
        ("", False),
        ("sms:+15550100", False),
        ("x y", False),
    ],
)
def test_reports_are_sent_to_mailboxes_only(sender: str, reached: bool) -> None:
    assert ReportPolicy().reaches(sender) is reached


@pytest.mark.parametrize("template", ["$nobody", "100 $", "${subject"])
def test_a_template_that_cannot_be_filled_is_refused(template: str) -> None:
    with pytest.raises(ConfigurationError, match=r"templates\.body"):
        TemplateWording("$subject", template)
    with pytest.raises(ConfigurationError, match=r"templates\.subject"):
        TemplateWording(template, "$subject")
