"""Input that cannot work, and what must come of it."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tests.support.runner import Engine


def refused(engine: Engine, code: int, *words: str, **more: Any) -> str:
    """What stands after `Error: `; no other line but a hint or the usage, and nothing is left."""
    __tracebackhide__ = True
    said = engine.fails(code, *words, **more)
    for line in said.splitlines():
        assert re.match("(Error|Hint|Usage|Warning): .", line), said
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", said)
    sentence = re.search("^Error: (.+)$", said, re.MULTILINE)
    assert sentence is not None
    assert engine.containers() == []
    assert engine.leftovers() == []
    return sentence.group(1)
