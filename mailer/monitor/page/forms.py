"""What a form of ours sends."""

from http import HTTPStatus
from urllib.parse import parse_qsl

from mailer.monitor.exchange import Asked, Refusal

_MOST_FIELDS = 20


def fields(asked: Asked) -> dict[str, str]:
    """Read a form's fields.

    Raises:
        Refusal: 400; the octets are not those of a form.
    """
    try:
        pairs = parse_qsl(asked.body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Refusal(HTTPStatus.BAD_REQUEST, "the form cannot be read") from None
    return dict(pairs)
