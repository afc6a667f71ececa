"""Submits one message through a sendmail program with Django, and a back end as its projects have them.

ARGUMENTS: the program, the subject. Run by Debian's Python.
"""

import subprocess
import sys

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend


class EmailBackend(BaseEmailBackend):
    def send_messages(self, email_messages):
        for each in email_messages:
            argv = [sys.argv[1], "-i", "-f", each.from_email, *each.recipients()]
            subprocess.run(argv, input=each.message().as_bytes(), check=True)
        return len(email_messages)


settings.configure(EMAIL_BACKEND="__main__.EmailBackend")
mail = EmailMessage(sys.argv[2], "hello\n", "ann@example.com", ["bob@example.net"], ["eve@example.org"])
assert mail.send() == 1
