"""Parse submitted forms."""

from http import HTTPStatus
from urllib.parse import parse_qsl

from mailer.monitor.exchange import Asked, Refusal

_MAX_FIELDS = 20


def fields(asked: Asked) -> dict[str, str]:
    """Return the fields of a form.

    Raises:
        Refusal: 400 if the body is not a form.
    """
    try:
        pairs = parse_qsl(asked.body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise Refusal(HTTPStatus.BAD_REQUEST, "the form cannot be read") from None
    return dict(pairs)
