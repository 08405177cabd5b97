"""Forms as browsers and providers post them, octet for octet: urlencoded, and multipart (RFC 7578). Pure."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from postroom.inbound.fields import Fields, parts
from postroom.receivers.providers_base import Malformed

__all__ = ["FORM_TYPES", "read_form", "read_pairs"]

FORM_TYPES: Final = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})
MAX_FIELDS: Final = 500

_LINE_ENDS: Final = re.compile(r"[\r\n]+")


def read_pairs(body: bytes) -> list[tuple[str, bytes]]:
    """Return the fields of an urlencoded form in their order.

    Raises:
        Malformed: there are too many.
    """
    try:
        # As Latin-1 each character stands for the octet of its number.
        pairs = parse_qsl(
            body.decode("latin-1"), keep_blank_values=True, encoding="latin-1", max_num_fields=MAX_FIELDS
        )
    except ValueError:
        raise Malformed("not a form, or one of too many fields") from None
    return [
        (name.encode("latin-1").decode("utf-8", "replace"), value.encode("latin-1")) for name, value in pairs
    ]


def read_form(headers: Mapping[str, str], body: bytes) -> Mapping[str, bytes]:
    """Return the fields of a form of either sort; of fields with one name the first.

    Raises:
        Malformed: it is none.
    """
    said = _LINE_ENDS.sub(" ", headers.get("content-type", ""))
    if not said.lower().lstrip().startswith("multipart/"):
        return dict(reversed(read_pairs(body)))
    content = f"Content-Type: {said}\r\n\r\n".encode("latin-1", "replace") + body
    form: dict[str, bytes] = {}
    found = parts(content, Fields(content))
    if not found or len(found) > MAX_FIELDS:
        raise Malformed("not a form, or one of too many fields")
    for part in found:
        name = part.fields.parameter("content-disposition", "name")
        if name and part.depth == 1:
            form.setdefault(
                name.encode("latin-1", "replace").decode("utf-8", "replace"), content[part.body : part.end]
            )
    return form
