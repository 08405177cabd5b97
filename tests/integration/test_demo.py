"""The demo: that it passes, and that it would notice if a message were lost, altered, forged or doubled."""

import base64
import json
import operator
import subprocess
import sys
from collections.abc import Iterator
from email import message_from_bytes
from functools import partial
from pathlib import Path

import pytest

from postroom.addresses import parse_address
from postroom.demo.checking import Arrivals, Found, arrivals, compare
from postroom.demo.http_receiver import verify
from postroom.demo.mail import ID_HEADER, WEIGHTS, Specimen, generate
from postroom.demo.processes import ServerProcess
from postroom.demo.recording import Recorder, read_records
from postroom.demo.screen import sparkline, wrapped
from postroom.messages import prepare
from postroom.transports.signatures import read_secrets, signature_headers

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


def demo(*options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", "from postroom.cli import main; main()", "demo", *options],
        capture_output=True, text=True, timeout=90, check=False, encoding="utf-8",
    )  # fmt: skip


@pytest.mark.slow
def test_the_demo_passes_and_says_what_it_shows(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    done = demo("--messages", "120", "--folder", str(place))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for said in ("kill -9", "smtp is parked", "crashed on purpose", "has started core/transports/webhook again",
                 "is started again", "postroom_ledger_imbalance 0", "0  are missing", "PASSED", "Read on"):  # fmt: skip
        assert said in done.stdout, said
    assert (place / "demo.log").stat().st_size > 0
    assert len(list(read_records(place / "http"))) > 10
    # What it found can be found again by others: the receivers' records are complete on disk.
    numbers = {str(message_from_bytes(content)[ID_HEADER]) for _, content in read_records(place / "smtp")}
    assert len(numbers) > 20


@pytest.mark.slow
def test_the_demo_as_json(tmp_path: Path) -> None:
    done = demo("--messages", "40", "--json", "--folder", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = json.loads(done.stdout)
    assert verdict["passed"] is True
    assert verdict["submitted"] == 40
    assert verdict["found"]["missing"] == []
    again = demo("--folder", str(tmp_path))
    assert again.returncode == 75
    assert "holds a spool already" in again.stderr


def specimens() -> dict[int, Specimen]:
    return {specimen.number: specimen for specimen in generate(60, 1, 8080)}


def contents(of: dict[int, Specimen]) -> dict[int, bytes]:
    return {
        number: prepare(
            specimen.message, now=0.0, message_id_domain="x.example", unique=f"U{number}", max_size=1 << 26
        ).content
        for number, specimen in of.items()
    }


def copies(of: dict[int, Specimen], octets: dict[int, bytes]) -> Iterator[Arrivals]:
    for number, specimen in of.items():
        for address in specimen.to:
            copy = (str(number), str(parse_address(address)))
            yield Arrivals(copy, "somewhere", True, partial(operator.eq, octets[number]))


def judge(found: list[Arrivals]) -> Found:
    of = specimens()
    return compare(of, iter(found), contents(of).get)


def test_messages_are_varied_and_the_same_for_the_same_seed() -> None:
    first, again = list(generate(60, 1, 8080)), list(generate(60, 1, 8080))
    assert [specimen.to for specimen in first] == [specimen.to for specimen in again]
    assert {specimen.kind for specimen in first} == set(WEIGHTS)
    octets = contents({specimen.number: specimen for specimen in first})
    assert all(message_from_bytes(content)[ID_HEADER] == str(number) for number, content in octets.items())
    large = [octets[specimen.number] for specimen in first if specimen.kind == "large"]
    assert all(1 << 20 <= len(content) <= 2 << 20 for content in large)
    assert any(len({address.partition(":")[0] for address in specimen.to}) > 1 for specimen in first)


def test_complete_is_complete() -> None:
    of = specimens()
    found = judge(list(copies(of, contents(of))))
    assert found.complete
    assert found.arrived == found.expected == sum(len(specimen.to) for specimen in of.values())


def test_a_lost_message_is_noticed() -> None:
    of = specimens()
    everything = list(copies(of, contents(of)))
    found = judge(everything[1:])
    assert found.missing == (everything[0].copy,)
    assert not found.complete


def test_an_altered_message_is_noticed() -> None:
    of = specimens()
    octets = contents(of)
    found = judge(list(copies(of, {**octets, 0: octets[0] + b"x"})))
    assert {number for number, _ in found.altered} == {"0"}
    assert not found.complete


def test_duplicates_are_counted_and_are_no_loss() -> None:
    of = specimens()
    everything = list(copies(of, contents(of)))
    found = judge([*everything, everything[0], everything[0]])
    assert found.duplicates == 2
    assert found.complete


def test_what_nobody_sent_and_what_is_forged_is_noticed() -> None:
    of = specimens()
    everything = list(copies(of, contents(of)))
    stranger = Arrivals(("9999", "smtp:x@example.org"), "somewhere", True, lambda _: True)
    assert judge([*everything, stranger]).unexpected == 1
    forged = Arrivals(everything[0].copy, "somewhere", False, lambda _: True)
    found = judge([*everything[1:], forged])
    assert found.forged == 1
    assert found.missing == (everything[0].copy,)


def test_the_receiver_verifies_signatures() -> None:
    headers = signature_headers(read_secrets(SECRET), "msg_1", 1000.0, b"body")
    assert verify(SECRET, headers, b"body", 1000.0)
    assert not verify(SECRET, headers, b"other", 1000.0)
    assert not verify(SECRET, headers, b"body", 2000.0)
    assert not verify("whsec_" + base64.b64encode(b"x" * 32).decode(), headers, b"body", 1000.0)
    assert not verify(SECRET, {**headers, "webhook-signature": "v1,!!! v2,AAAA"}, b"body", 1000.0)
    assert not verify(SECRET, {}, b"body", 1000.0)


def test_a_server_comes_back_on_its_port(tmp_path: Path) -> None:
    with ServerProcess("postroom.demo.smtp_server", tmp_path) as server:
        port, pid = server.port, server.pid
        server.kill()
        assert server.pid == 0
        server.start()
        assert server.port == port
        assert server.pid not in {0, pid}


def test_records_are_read_back(tmp_path: Path) -> None:
    Recorder(tmp_path).record(b"octets\r\n", {"recipients": ["ann@example.org"]})
    ((facts, content),) = read_records(tmp_path)
    assert facts["recipients"] == ["ann@example.org"]
    assert content == b"octets\r\n"
    assert list(arrivals(tmp_path / "none", tmp_path / "none", 1, tmp_path / "none")) == []


def test_pictures_of_numbers() -> None:
    assert sparkline([0, 1, 4, 8], 10) == " ▁▄█"
    assert len(sparkline(list(range(500)), 40)) == 40
    assert sparkline([], 10) == ""
    assert wrapped("  * one two three", 12) == ["  * one two", "    three"]
