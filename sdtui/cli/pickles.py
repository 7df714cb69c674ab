"""`sdtui inspect FILE.ckpt --pickle`: the tensors of a pickle, read by a process of its own."""

from __future__ import annotations

import asyncio

from sdtui.anatomy.structs import Anatomy
from sdtui.cli.output import EXIT_BAD_INPUT, CommandError
from sdtui.protocol import ReadPickle
from sdtui.server.inspector import Inspector, InspectorError


def read(path: str) -> Anatomy:
    """Ask an inspector process. Raises `CommandError`."""
    try:
        return asyncio.run(_ask(path))
    except InspectorError as error:
        raise CommandError(str(error), EXIT_BAD_INPUT) from error


async def _ask(path: str) -> Anatomy:
    inspector = Inspector()
    try:
        return (await inspector.request(ReadPickle(request=0, model=path))).anatomy
    finally:
        await inspector.close()
