"""Asks for access tokens as runners do: in so many processes at once, or again and again until it is killed.

Usage: outbound.token_askers ORDER 64|renew, where ORDER is JSON: the spool and the configuration.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from mailer.config.load import load
from mailer.oauth.source import TokenSource
from mailer.spool.directory import Spool


def source_of(order: dict[str, str]) -> TokenSource:
    provider = load(order["config"], {}).config.providers[0]
    assert provider.oauth is not None
    spool = Spool.open(Path(order["spool"]))
    return TokenSource(provider.oauth, provider.username, "smtp.example.com:587", spool, time.time)


def ask(order: dict[str, str]) -> None:
    os.write(1, asyncio.run(source_of(order).token()).encode() + b"\n")


async def renew_for_ever(source: TokenSource) -> None:
    while True:
        await source.renew()


def main() -> None:
    order = json.loads(sys.argv[1])
    if sys.argv[2] == "renew":
        asyncio.run(renew_for_ever(source_of(order)))
    children = []
    for _ in range(int(sys.argv[2])):
        child = os.fork()
        if child == 0:
            try:
                ask(order)
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
