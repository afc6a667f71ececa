"""Submits one message with Django; the order comes as JSON on standard input. Run by Debian's Python."""

import json
import sys

from django.conf import settings
from django.core.mail import send_mail

order = json.load(sys.stdin)
settings.configure(
    EMAIL_HOST=order["host"],
    EMAIL_PORT=order["port"],
    EMAIL_HOST_USER=order["user"],
    EMAIL_HOST_PASSWORD=order["pass"],
    EMAIL_USE_TLS=bool(order["ca"]),
)
sys.exit(
    send_mail(
        "Here is the subject", "Here is the message.", order["from"], [order["to"]], fail_silently=False
    )
    != 1
)
