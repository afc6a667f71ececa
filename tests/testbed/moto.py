"""Amazon SES by others: moto's server, which verifies each signature with botocore and keeps what it took."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from testbed.ports import LOOPBACK, free_port
from testbed.process import ServerProcess
from testbed.tools import MOTO, MissingToolError

_FORM = "application/x-www-form-urlencoded"
_POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "ses:SendEmail", "Resource": "*"}],
}


class Moto:
    """A running one, with one user who may send, from one verified sender."""

    def __init__(self, directory: Path, region: str, sender: str) -> None:
        """
        Raises:
            MissingToolError: it is not installed.
        """
        if not MOTO.exists():
            raise MissingToolError("moto")
        self._log = directory / "moto-output"
        self._region = region
        self._sender = sender
        self._port = free_port()
        self._process: ServerProcess | None = None
        self.key_id = self.secret = ""
        """The user's access key."""

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._port}"

    def __enter__(self) -> Self:
        argv = [str(MOTO), "-H", LOOPBACK, "-p", str(self._port)]
        # After the four requests below each must be signed, by a user who may do what it asks for.
        environment = os.environ | {"INITIAL_NO_AUTH_ACTION_COUNT": "4"}
        self._process = ServerProcess(argv, self._log, env=environment)
        try:
            self._process.await_port(self._port)
            self._iam(Action="CreateUser")
            key = self._iam(Action="CreateAccessKey")
            self._iam(Action="PutUserPolicy", PolicyName="send", PolicyDocument=json.dumps(_POLICY))
            identity = json.dumps({"EmailIdentity": self._sender})
            self._post("ses", "/v2/email/identities", identity, "application/json")
        except BaseException:
            self._process.kill()
            raise
        self.key_id, self.secret = (
            re.findall(rf"<{name}>(.+)</{name}>", key)[0] for name in ("AccessKeyId", "SecretAccessKey")
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.kill()

    def taken(self) -> list[Mapping[str, Any]]:
        """Source, destinations and raw data of each message."""
        with urlopen(f"{self.url}/moto-api/data.json") as answer:
            found: list[Mapping[str, Any]] = json.load(answer)["ses"]["RawMessage"]
        return found

    def _iam(self, **order: str) -> str:
        form = urlencode(order | {"UserName": "mailer", "Version": "2010-05-08"})
        return self._post("iam", "/", form, _FORM)

    def _post(self, service: str, path: str, body: str, kind: str) -> str:
        """By this header moto tells which service is meant."""
        scope = f"x/20260101/{self._region}/{service}/aws4_request"
        headers = {
            "Content-Type": kind,
            "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0",
        }
        with urlopen(Request(f"{self.url}{path}", body.encode(), headers)) as answer:
            return str(answer.read().decode())
