"""What a configuration file says of hooks: footers, signatures, code of one's own."""

import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from postroom.addresses import parse_address
from postroom.config_hooks import make_preprocessors, make_sent_hooks
from postroom.delivery import Target
from postroom.errors import ConfigurationError, InternalError
from postroom.hooks import FunctionPreprocessor, Preprocessor, Work
from postroom.preprocessing.dkim import DkimSigner
from postroom.preprocessing.footers import Footer
from postroom.transports.base import Limits
from postroom.transports.memory import MemoryTransport
from tests.support.config_files import MEMORY, SMTP, SPOOL_ONLY, configured

MODULE = "hooks_for_test_config"
SOURCE = """\
from dataclasses import dataclass

from postroom.hooks import UNCHANGED, Preprocessor, SentHook, preprocessor, sent_hook

told = []


@preprocessor(name="marker", timeout=7)
def campaign(message, work):
    message["X-Campaign"] = "autumn"
    return message


def plain(message, work):
    message["X-Plain"] = "yes"
    return message


def one(message):
    return message


@dataclass(kw_only=True, eq=False)
class Gate(Preprocessor):
    closed: list
    name: str = "gate"

    def __post_init__(self):
        super().__post_init__()
        if "example.net" in self.closed:
            from postroom.errors import ConfigurationError

            raise ConfigurationError("closed", "holds example.net", "leave it open")

    def process(self, work):
        return UNCHANGED


def billing(status, content):
    told.append((status.id, content))


@sent_hook
def noted(status, content):
    told.append("noted")


class Archive(SentHook):
    def sent(self, status, content):
        told.append("archived")


number = 3
"""
ANN = Target(0, parse_address("memory:ann"))
WORK = Work(1, "app@example.org", (ANN,), b"From: app@example.org\r\nSubject: x\r\n\r\nHello\r\n")


def hook(text: str) -> str:
    return MEMORY + "[[preprocessor]]\n" + text


def python(name: str, more: str = "") -> str:
    return hook(f'kind = "python"\nobject = "{MODULE}:{name}"\n{more}')


def sent(name: str, more: str = "") -> str:
    return MEMORY + f'[[sent_hook]]\nobject = "{MODULE}:{name}"\n{more}'


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / f"{MODULE}.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "broken_for_test_config.py").write_text("import nothing_of_this_name\n", encoding="utf-8")
    (tmp_path / "raising_for_test_config.py").write_text(
        "raise RuntimeError('no database')\n", encoding="utf-8"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    yield
    for name in (MODULE, "broken_for_test_config", "raising_for_test_config"):
        sys.modules.pop(name, None)


def only(tmp_path: Path, text: str, *, deliver: bool = True) -> Preprocessor:
    (made,) = make_preprocessors(configured(tmp_path, text).preprocessors, deliver=deliver)
    return made


# Preprocessors


def test_a_footer_with_everything(tmp_path: Path) -> None:
    text = hook(
        'kind = "footer"\nname = "legal"\naddress_types = ["MEMORY"]\ntimeout = "5s"\non_error = "skip"\n'
        'text = "Example Ltd"\nhtml = "<p>Example Ltd</p>"\n'
    )
    footer = only(tmp_path, text)
    assert isinstance(footer, Footer)
    assert (footer.name, footer.timeout, footer.on_error) == ("legal", 5.0, "skip")
    assert footer.address_types == {"memory"}
    assert (footer.text, footer.html) == ("Example Ltd", "<p>Example Ltd</p>")


def test_address_types_may_be_all(tmp_path: Path) -> None:
    assert only(tmp_path, hook('kind = "footer"\ntext = "x"\naddress_types = "*"\n')).address_types == "*"


def test_a_signer_reads_its_keys_only_where_messages_are_delivered(tmp_path: Path) -> None:
    text = SMTP + (
        '[[preprocessor]]\nkind = "dkim"\non_error = "fail"\ntimeout = "3s"\n'
        'keys = [{ domain = "example.org", selector = "s1", private_key = "key.pem", identity = "@example.org" }]\n'
        'headers = ["From", "To"]\noversigned = ["From", "To"]\ncanonicalization = "relaxed/relaxed"\n'
        'seven_bit = false\nunsigned = "fail"\n'
    )
    elsewhere = only(tmp_path, text, deliver=False)
    assert (elsewhere.name, elsewhere.address_types, elsewhere.timeout) == ("dkim", {"smtp"}, 3.0)
    with pytest.raises(InternalError):
        elsewhere.process(WORK)
    with pytest.raises(ConfigurationError, match=r"cannot be read") as caught:
        only(tmp_path, text)
    assert caught.value.field == "postroom.toml: [[preprocessor]] number 1 keys[0].private_key"
    (tmp_path / "key.pem").write_text(
        "AAAA" * 10 + "AAA=", encoding="utf-8"
    )  # Ed25519, as 32 octets in base64
    signer = only(tmp_path, text)
    assert isinstance(signer, DkimSigner)
    assert [key.domain for key in signer.keys] == ["example.org"]
    assert signer.keys[0].private_key == tmp_path / "key.pem"
    assert signer.keys[0].identity == "@example.org"
    assert (signer.headers, signer.oversigned) == (["From", "To"], ["From", "To"])
    assert (signer.canonicalization, signer.seven_bit, signer.unsigned) == ("relaxed/relaxed", False, "fail")
    assert (signer.on_error, signer.timeout) == ("fail", 3.0)


def test_a_preprocessor_that_is_an_object(tmp_path: Path) -> None:
    as_it_is = only(tmp_path, python("campaign"))
    assert isinstance(as_it_is, FunctionPreprocessor)
    assert (as_it_is.name, as_it_is.timeout) == ("marker", 7)
    changed = only(
        tmp_path, python("campaign", 'name = "other"\non_error = "skip"\naddress_types = ["memory"]\n')
    )
    assert (changed.name, changed.timeout, changed.on_error) == ("other", 7, "skip")
    assert changed.handles("memory")
    assert not changed.handles("smtp")
    assert only(tmp_path, python("campaign")).name == "marker"


def test_a_preprocessor_that_is_a_function(tmp_path: Path) -> None:
    made = only(tmp_path, python("plain", 'timeout = "2s"\n'))
    assert (made.name, made.timeout) == ("plain", 2.0)
    assert made.process(WORK).content is not None


def test_a_preprocessor_that_is_a_class(tmp_path: Path) -> None:
    made = only(tmp_path, python("Gate", 'options = { closed = ["example.com"] }\non_error = "fail"\n'))
    assert {field.name: getattr(made, field.name) for field in fields(made)} == {
        "name": "gate", "address_types": "*", "timeout": 30.0, "on_error": "fail", "closed": ["example.com"],
    }  # fmt: skip


def test_code_is_imported_when_a_spooler_is_made_not_when_the_file_is_read(tmp_path: Path) -> None:
    config = configured(tmp_path, python("plain"))
    assert MODULE not in sys.modules
    config.spooler(deliver=False)
    assert MODULE in sys.modules


def test_limits_of_the_stage(tmp_path: Path) -> None:
    assert configured(tmp_path, python("plain")).preprocessing is None
    config = configured(
        tmp_path, python("plain") + '[preprocessing]\nconcurrency = 2\nattempt_timeout = "90s"\n'
    )
    assert config.preprocessing == Limits(concurrency=2, attempt_timeout=90.0, recipients_per_delivery=1_000)


# Sent-hooks


def test_sent_hooks(tmp_path: Path) -> None:
    text = sent("billing", 'timeout = "3s"\n') + sent("noted", 'name = "other"\n')[len(MEMORY) :]
    text += sent("Archive", 'name = "archive"\n')[len(MEMORY) :]
    sources = configured(tmp_path, text).sent_hooks
    made = make_sent_hooks(sources, deliver=True)
    assert [(each.name, each.timeout) for each in made] == [
        ("billing", 3.0),
        ("other", 30.0),
        ("archive", 30.0),
    ]


def test_sent_hooks_are_not_imported_where_messages_are_only_accepted(tmp_path: Path) -> None:
    sources = configured(tmp_path, sent("billing")).sent_hooks
    assert len(make_sent_hooks(sources, deliver=False)) == 1
    assert MODULE not in sys.modules


# All of it together


def test_a_message_passes_through_what_the_file_says(tmp_path: Path) -> None:
    text = python("campaign") + python("plain")[len(MEMORY) :]
    text += '[[preprocessor]]\nkind = "footer"\naddress_types = ["memory"]\ntext = "Example Ltd"\n'
    text += "[preprocessing]\nconcurrency = 1\n" + sent("billing")[len(MEMORY) :]
    config = configured(tmp_path, text)
    with config.spooler(deliver=False) as outbox:
        receipt = outbox.submit(b"From: app@example.org\r\n\r\nHello\r\n", to="memory:ann")
    with config.spooler() as spooler:
        running = spooler._running  # pyright: ignore[reportPrivateUsage] - nothing public shows the limits
        assert running is not None
        assert running.context.transports["preprocess"].limits.concurrency == 1
        assert spooler.wait(receipt.id, timeout=20).succeeded
    (transport,) = config.transports
    assert isinstance(transport, MemoryTransport)
    (delivery,) = transport.deliveries
    content = delivery.content
    assert b"X-Campaign: autumn\r\n" in content
    assert b"X-Plain: yes\r\n" in content
    assert content.endswith(b"Hello\r\n\r\nExample Ltd\r\n")


# Mistakes

KEYS = "kind = 'dkim'\nkeys = [{{ {} }}]\n"
PATH = "domain = 'example.org', selector = 's', private_key = 'k'"

FILE_MISTAKES = [
    (MEMORY + "[preprocessor]\nkind = 'dkim'\n", r"\[preprocessor\]: is one table", "double brackets"),
    (hook("name = 'x'\n"), r"\[\[preprocessor\]\] x kind: is missing", "footer, dkim, python"),
    (hook("kind = 'dikm'\n"), "kind: 'dikm' is not possible", "did you mean dkim?"),
    (hook("kind = 'footer'\nteckst = 'x'\n"), "number 1 teckst: is not a known key", "did you mean text?"),
    (hook("kind = 'footer'\n"), "number 1 text or html: has neither text nor html", "give one"),
    (hook("kind = 'footer'\ntext = '$who'\n"), r"number 1 text or html: knows no \$who", "use one"),
    (hook("kind = 'footer'\ntext = 'x'\ntimeout = 0\n"), "timeout: 0.0 is not positive", "above 0"),
    (hook("kind = 'footer'\ntext = 'x'\nname = 'a b'\n"), "name: 'a b' cannot name a hook", "ASCII"),
    (hook("kind = 'footer'\ntext = 'x'\non_error = 'ignore'\n"), "on_error: 'ignore' is not", "skip"),
    (
        hook("kind = 'footer'\ntext = 'x'\naddress_types = 'smtp'\n"),
        "types: 'smtp' is not a list",
        "all types",
    ),
    (hook("kind = 'footer'\ntext = 'x'\naddress_types = []\n"), "address_types: it is empty", "at least one"),
    (
        hook("kind = 'footer'\ntext = 'x'\naddress_types = ['memry']\n"),
        "address_types: no transport takes addresses of type 'memry'",
        "did you mean memory?",
    ),
    (hook("kind = 'dkim'\n"), "keys: is missing", "add keys"),
    (hook("kind = 'dkim'\nkeys = []\n"), "keys: is empty", "at least one"),
    (hook("kind = 'dkim'\nkeys = 'k'\n"), "keys: 'k' is not a list", "write"),
    (hook(KEYS.format("domain = 'example.org'")), r"keys\[0\]: selector: is missing", "add selector"),
    (hook(KEYS.format(PATH + ", selctor = 's'")), r"keys\[0\]: selctor: is not a known", "selector?"),
    (
        hook(KEYS.format(PATH.replace("'k'", "'-----BEGIN PRIVATE KEY-----'"))),
        r"keys\[0\]: private_key: is a secret, and this file",
        "path of a PEM file",
    ),
    (
        hook(KEYS.format(PATH) + "unsigned = 'leaf'\n"),
        "unsigned: 'leaf' is not possible",
        "did you mean leave?",
    ),
    (hook("kind = 'python'\n"), "object: is missing", "add object"),
    (
        hook("kind = 'python'\nobject = 'myapp.hooks.campaign'\n"),
        "object: .* does not name",
        "myapp.hooks:campaign",
    ),
    (
        hook("kind = 'python'\nobject = 'hooks.py'\n"),
        "'hooks.py' does not name an object",
        "myapp.hooks:campaign",
    ),
    (python("plain", "options = 3\n"), "options: 3 is not a table", "section of its own"),
    (
        MEMORY + "[preprocessing]\nconcurrency = 1\n",
        r"\[preprocessing\] concurrency: is for preproc",
        "add a",
    ),
    (
        python("plain") + "[preprocessing]\nconcurency = 1\n",
        r"\[preprocessing\] concurency: is not",
        "concurrency?",
    ),
    (python("plain") + "[preprocessing]\nstrict_order = true\n", "strict_order: is not a known", "use one"),
    (
        python("plain") + "[preprocessing]\nconcurrency = 0\n",
        r"\[preprocessing\] concurrency: 0 is not",
        "above",
    ),
    (MEMORY + "[[sent_hook]]\n", r"\[\[sent_hook\]\] number 1 object: is missing", "add object"),
    (
        sent("billing", "timeout = -1\n"),
        "timeout: '-1' is not a duration",
        "30s",
    ),
    (sent("billing", "on_error = 'skip'\n"), "on_error: is not a known key", "use one"),
]


@pytest.mark.parametrize(("text", "problem", "remedy"), FILE_MISTAKES)
def test_a_mistake_in_the_file_shows_when_it_is_read(
    tmp_path: Path, text: str, problem: str, remedy: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        configured(tmp_path, text)
    assert caught.value.field.startswith("postroom.toml: ")
    assert re.search(remedy, caught.value.remedy)
    assert MODULE not in sys.modules


OBJECT_MISTAKES = [
    (
        hook("kind = 'python'\nobject = 'no_such_app.hooks:x'\n"),
        "object: there is no module 'no_such_app'",
        "PYTHONP",
    ),
    (
        hook(f"kind = 'python'\nobject = '{MODULE}.x:y'\n"),
        f"object: there is no module '{MODULE}.x'",
        ".",
    ),
    (
        hook("kind = 'python'\nobject = 'broken_for_test_config:x'\n"),
        r"importing broken_for_test_config failed \(ModuleNotFoundError: No module named 'nothing_of_this_name'",
        "import broken_for_test_config",
    ),
    (
        hook("kind = 'python'\nobject = 'raising_for_test_config:x'\n"),
        r"importing raising_for_test_config failed \(RuntimeError: no database\)",
        "works",
    ),
    (python("campain"), f"object: the module {MODULE} has no 'campain'", "did you mean campaign?"),
    (python("zzz"), f"object: the module {MODULE} has no 'zzz'", "define it there"),
    (python("number"), "object: .*:number is neither a Preprocessor nor a function", "name one"),
    (python("one"), r"object: .*:one does not take \(message, work\)", "parameters"),
    (python("noted"), "object: .*:noted is a SentHook", "sent_hook"),
    (python("Archive"), "object: .*:Archive is a SentHook", "sent_hook"),
    (python("plain", "options = { a = 1 }\n"), "options: are for a class", "leave them out"),
    (python("Gate"), "options: do not make a .*:Gate: .*closed", "what it takes"),
    (
        python("Gate", "options = { closed = ['example.net'] }\n"),
        "number 1 closed: holds example.net",
        "open",
    ),
    (python("plain") + python("plain")[len(MEMORY) :], "number 2 name: 'plain' is taken", "name = …"),
    (sent("campaign"), r"\[\[sent_hook\]\] number 1 object: .* is a Preprocessor", "preprocessor"),
    (sent("one"), r"object: .*:one does not take \(status, content\)", "parameters"),
    (sent("billing") + sent("billing")[len(MEMORY) :], "number 2 name: 'billing' is taken", "name = …"),
    (sent("Archive"), "options: do not make a .*:Archive: .*name", "what it takes"),
    (
        SMTP + "[[preprocessor]]\nkind = 'dkim'\n" + f"keys = [{{ {PATH} }}]\nheaders = ['Bcc']\n",
        r"number 1 headers: bcc must not be signed",
        "leave it out",
    ),
]


@pytest.mark.parametrize(("text", "problem", "remedy"), OBJECT_MISTAKES)
def test_a_mistake_in_what_the_file_names_shows_when_a_spooler_is_made(
    tmp_path: Path, text: str, problem: str, remedy: str
) -> None:
    config = configured(tmp_path, text)
    with pytest.raises(ConfigurationError, match=problem) as caught:
        config.spooler()
    assert caught.value.field.startswith("postroom.toml: [[")
    assert re.search(remedy, caught.value.remedy)


@pytest.mark.parametrize("pattern", ["fax:*", "*:+44*"])
def test_address_types_that_a_pattern_speaks_of_are_known(tmp_path: Path, pattern: str) -> None:
    text = SPOOL_ONLY + f'[[transport]]\nkind = "memory"\npatterns = ["{pattern}"]\n'
    text += '[[preprocessor]]\nkind = "footer"\ntext = "x"\naddress_types = ["fax"]\n'
    assert configured(tmp_path, text).preprocessors[0].common["address_types"] == {"fax"}
