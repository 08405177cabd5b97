"""What a configuration file says of reports, distribution lists and the address book."""

import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from postroom.cli.options import Place
from postroom.config import Config
from postroom.envelope_recipients import Recipient, Report
from postroom.errors import ConfigurationError
from postroom.list_files import ListFile
from postroom.reports.policy import ReportPolicy
from postroom.reports.wording import TemplateWording, english
from tests.support.config_files import MEMORY, configured

REPORTS = MEMORY + "[reports]\n"
LISTS = MEMORY + "[lists]\n"
NAMES = MEMORY + "[names]\n"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "reports_for_test_config.py").write_text(
        "taken = []\n\ndef take(report):\n    taken.append(report)\n\nnumber = 3\n", encoding="utf-8"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    yield
    sys.modules.pop("reports_for_test_config", None)


def policy_of(config: Config) -> ReportPolicy:
    assert config.reports.policy is not None
    return config.reports.policy


# Reports


def test_every_field_of_the_report_policy(tmp_path: Path) -> None:
    text = REPORTS + (
        'kinds = ["failure", "delay"]\nlinger = "3s"\ndelay_after = "2h"\nmax_original = "64KiB"\n'
        'postmaster = "Postmaster@example.org"\nreporting_mta = "mail.example.org"\n'
        'author = "Mail <mail@example.org>"\nper_hour = 7\nmax_wait = "5m"\n'
    )
    assert policy_of(configured(tmp_path, text)) == ReportPolicy(
        kinds={Report.FAILURE, Report.DELAY},
        linger=3.0,
        delay_after=7200.0,
        max_original=65536,
        postmaster="Postmaster@example.org",
        reporting_mta="mail.example.org",
        author="Mail <mail@example.org>",
        per_hour=7,
        max_wait=300.0,
    )


def test_reports_without_a_limit_and_without_any_kind(tmp_path: Path) -> None:
    policy = policy_of(configured(tmp_path, REPORTS + 'per_hour = "unlimited"\nkinds = []\n'))
    assert policy.per_hour is None
    assert policy.kinds == frozenset()


def test_no_reports(tmp_path: Path) -> None:
    assert (
        configured(tmp_path, REPORTS + 'enabled = false\npostmaster = "a@example.org"\n').reports.policy
        is None
    )
    assert configured(tmp_path, REPORTS + "enabled = true\n").reports.policy == ReportPolicy()


def test_templates_are_files(tmp_path: Path) -> None:
    (tmp_path / "failure.txt").write_text(
        "Subject: Not sent: $subject\n\nSorry.\n\n$failed\n", encoding="utf-8"
    )
    policy = policy_of(configured(tmp_path, REPORTS + 'templates = { failure = "failure.txt" }\n'))
    assert policy.wording(Report.FAILURE) == TemplateWording("Not sent: $subject", "Sorry.\n\n$failed\n")
    assert policy.wording(Report.DELAY) is english


@pytest.mark.usefixtures("module")
def test_reports_go_to_a_function_where_messages_are_delivered(tmp_path: Path) -> None:
    text = REPORTS + 'deliver = "reports_for_test_config:take"\ncallback_timeout = "5s"\n'
    reports = configured(tmp_path, text).reports
    policy = reports.make(deliver=True)
    assert policy is not None
    assert callable(policy.deliver)
    assert policy.deliver.__name__ == "take"
    assert policy.callback_timeout == 5.0
    elsewhere = reports.make(deliver=False)
    assert elsewhere is not None
    assert elsewhere.deliver == "spool"


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("name", "problem", "remedy"),
    [
        ("reports_for_test_config:number", "is no function", "DeliveryReport"),
        ("reports_for_test_config:tak", "has no 'tak'", "did you mean take?"),
        ("reports_for_test_confg:take", "there is no module 'reports_for_test_confg'", "PYTHONPATH"),
    ],
)
def test_a_function_that_cannot_be_had(tmp_path: Path, name: str, problem: str, remedy: str) -> None:
    config = configured(tmp_path, REPORTS + f'deliver = "{name}"\n')
    with pytest.raises(ConfigurationError, match=problem) as caught:
        config.spooler()
    assert caught.value.field == "postroom.toml: [reports] deliver"
    assert remedy in caught.value.remedy


# Lists and names


def test_lists_and_their_members(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("sales: eve@example.org\n", encoding="utf-8")
    text = LISTS + (
        'staff = ["ann@example.org", "board"]\n"all@example.org" = []\nfile = "more.txt"\n'
        "board = [\n"
        '  { address = "bob@example.org", alternatives = ["sms:+15550100"], report = ["delay"] },\n'
        '  { address = "list:staff", orcpt = "rfc822;staff@example.org" },\n'
        "]\n"
    )
    own, file = configured(tmp_path, text).lists
    assert isinstance(own, Mapping)
    assert own["staff"] == ("ann@example.org", "board")
    assert own["all@example.org"] == ()
    assert own["board"] == (
        Recipient("bob@example.org", alternatives=["sms:+15550100"], report=frozenset({Report.DELAY})),
        Recipient("list:staff", orcpt="rfc822;staff@example.org"),
    )
    assert isinstance(file, ListFile)
    assert file.path == tmp_path / "more.txt"


def test_a_file_alone(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("sales: eve@example.org\n", encoding="utf-8")
    (file,) = configured(tmp_path, LISTS + 'file = "more.txt"\n').lists
    assert isinstance(file, ListFile)


def test_a_message_to_lists_and_names(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("sales: memory:eve, board\n", encoding="utf-8")
    text = (
        LISTS
        + 'file = "more.txt"\nboard = ["memory:ann", "Bob Other"]\n[names]\n"Bob Other" = "memory:bob"\n'
    )
    config = configured(tmp_path, text)
    assert config.names == {"Bob Other": "memory:bob"}
    with config.spooler() as spooler:
        status = spooler.submit(b"From: a@example.org\n\nhi\n", to=["list:sales", "bob other"]).wait(10)
    assert {str(recipient.address) for recipient in status.recipients} == {
        "memory:eve",
        "memory:ann",
        "memory:bob",
    }


def test_the_commands_expand_lists_too(tmp_path: Path) -> None:
    config = configured(tmp_path, LISTS + 'board = ["memory:ann", "memory:bob"]\n')
    with Place(None, config.file).spooler(create=True) as outbox:
        receipt = outbox.submit(b"From: a@example.org\n\nhi\n", to="list:board")
        addresses = [str(recipient.address) for recipient in outbox.status(receipt.id).recipients]
    assert addresses == ["memory:ann", "memory:bob"]


# Mistakes

MISTAKES = [
    (REPORTS + "kind = ['failure']\n", r"\[reports\] kind: is not a known key", "did you mean kinds?"),
    (REPORTS + "kinds = 'failure'\n", r"\[reports\] kinds: 'failure' is not a list", "write"),
    (REPORTS + "kinds = ['failures']\n", r"\[reports\] kinds: 'failures' is not", "did you mean failure?"),
    (REPORTS + "enabled = 'no'\n", r"\[reports\] enabled: 'no' is neither", "without quotes"),
    (REPORTS + "linger = 'x'\n", r"\[reports\] linger: 'x' is not a duration", "30s"),
    (REPORTS + "postmaster = 'ann'\n", r"\[reports\] postmaster: ", "."),
    (REPORTS + "enabled = false\nauthor = 'ann'\n", r"\[reports\] author: ", "."),
    (REPORTS + "reporting_mta = 'a b'\n", r"\[reports\] reporting_mta: 'a b' ", "."),
    (REPORTS + "per_hour = 0\n", r"\[reports\] per_hour: 0 is not positive", "above 0"),
    (REPORTS + "per_hour = 'no'\n", r"\[reports\] per_hour: 'no' is not a whole number", "digits"),
    (REPORTS + "deliver = 'myapp.take'\n", "deliver: 'myapp.take' does not name", "myapp:take"),
    (REPORTS + "callback_timeout = 5\n", "callback_timeout: is for a function", "set deliver"),
    (REPORTS + "templates = { failur = 'x' }\n", "templates: failur: is not a known key", "failure?"),
    (REPORTS + "templates = { delay = 'none.txt' }\n", "templates: delay: .*none.txt cannot be read", "name"),
    (REPORTS + "templates = { delay = 'bare.txt' }\n", "delay: .*bare.txt is no template", "Subject: …"),
    (REPORTS + "templates = { delay = 'latin.txt' }\n", "delay: .*latin.txt is not UTF-8", "encode"),
    (REPORTS + "templates = { delay = 'odd.txt' }\n", r"delay .*odd.txt: body: uses \$who", r"use of \$"),
    ("lists = 3\n" + MEMORY, "postroom.toml: lists: is not a table", r"\[lists\]"),
    (LISTS + "staff = 'ann@example.org'\n", r"\[lists\] staff: .* is not a list", "write"),
    (LISTS + "staff = ['a@b@c']\n", r"\[lists\] staff\[0\]: ", "."),
    (LISTS + "staff = [3]\n", r"\[lists\] staff\[0\]: 3 is not a text", "quotes"),
    (LISTS + "staff = []\nStaff = []\n", r"\[lists\] Staff: another list is called that", "join"),
    (LISTS + "'a@b@c' = []\n", r"\[lists\] a@b@c: ", "."),
    (LISTS + "staff = [{ adress = 'a@b.example' }]\n", r"staff\[0\]: adress: is not a known", "address?"),
    (LISTS + "staff = [{ report = [] }]\n", r"staff\[0\]: address: is missing", "add address"),
    (
        LISTS + "staff = [{ address = 'a@b.example', alternatives = ['x@y@z'] }]\n",
        r"\[lists\] staff\[0\].alternatives\[0\]: ",
        ".",
    ),
    (LISTS + "file = ['a.txt', 'b.txt']\n", r"\[lists\] file: names a file of lists", "list:file"),
    (LISTS + "file = 'none.txt'\n", r"\[lists\] file .*none.txt: cannot be read", "name a file"),
    (LISTS + "file = 'bad.txt'\n", r"\[lists\] file .*bad.txt:2: 'nobody' has no colon", "write name"),
    (NAMES + "Ann = 3\n", r"\[names\] Ann: 3 is not a text", "quotes"),
    (NAMES + "Ann = 'a@b@c'\n", r"\[names\] Ann: ", "."),
    (NAMES + "Ann = 'a@b.example'\nann = 'c@d.example'\n", r"\[names\] ann: is there twice", "case"),
]


@pytest.mark.parametrize(("text", "problem", "remedy"), MISTAKES)
def test_a_mistake_is_named_with_its_place_and_its_remedy(
    tmp_path: Path, text: str, problem: str, remedy: str
) -> None:
    (tmp_path / "bare.txt").write_text("Sorry.\n", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes(b"Subject: Gr\xfc\xdfe\n\nx\n")
    (tmp_path / "odd.txt").write_text("Subject: x\n\n$who\n", encoding="utf-8")
    (tmp_path / "bad.txt").write_text("staff: ann@example.org\nnobody\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=problem) as caught:
        configured(tmp_path, text)
    assert caught.value.field.startswith("postroom.toml: ")
    assert re.search(remedy, caught.value.remedy)
