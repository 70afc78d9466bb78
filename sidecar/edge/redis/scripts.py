"""The Lua scripts that decide, put together: each kind of limit has an arm of its own in lua/arms/.

A script has lines `-- arms: NAME`. There the sections NAME of all arms are put in, as the branches of one `if` on the
arm's name, which is the word with which a limit begins in ARGV. `functions` are put in as they are.
"""

from __future__ import annotations

import re
from hashlib import sha1
from pathlib import Path
from typing import Final, NamedTuple

from sidecar.edge.redis.wire import bulks

_LUA: Final = Path(__file__).with_name("lua")
_PLACE: Final = re.compile(r"^( *)-- arms: (\w+)\n", re.MULTILINE)
_SECTION: Final = re.compile(r"^-- (\w+):.*\n", re.MULTILINE)


class Script:
    """A script by its digest; in full where a server does not know it."""

    __slots__ = ("_full", "digest", "text", "words")

    def __init__(self, *names: str) -> None:
        self.text = script_text(*names)
        self.digest = sha1(self.text.encode()).hexdigest()  # noqa: S324 - Redis's own name for a script
        self.words = bulks("EVALSHA", self.digest)
        self._full = bulks("EVAL", self.text)

    def in_full(self, packed: bytes) -> bytes:
        """The same command with the script's text in place of its digest."""
        return packed.replace(self.words, self._full, 1)


class Scripts(NamedTuple):
    """The two scripts of an exchange, and the one that shows what is left."""

    reserve: Script
    settle: Script
    peek: Script


def script_text(*names: str) -> str:
    """The files of lua/ in this order, as one text, with their arms."""
    arms = {path.stem: _sections(path.read_text()) for path in sorted(_LUA.glob("arms/*.lua"))}
    text = "".join([_LUA.joinpath(name).read_text() for name in names])
    return _PLACE.sub(lambda place: _put(place[1], place[2], arms), text)


def _sections(text: str) -> dict[str, str]:
    parts = _SECTION.split(text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _put(indent: str, name: str, arms: dict[str, dict[str, str]]) -> str:
    sections = {arm: texts[name] for arm, texts in arms.items() if name in texts}
    if name == "functions":
        return "".join(sections.values())
    branches = "".join([f"{indent}elseif kind == '{arm}' then\n{text}" for arm, text in sections.items()])
    return indent + branches.removeprefix(f"{indent}else") + f"{indent}end\n"


EXTEND: Final = Script("extend.lua")
PLAIN: Final = Scripts(Script("evaluate.lua", "reserve.lua"), Script("settle.lua"), Script("evaluate.lua", "peek.lua"))
WITH_WALLETS: Final = Scripts(
    Script("wallet.lua", "evaluate.lua", "reserve.lua"),
    Script("wallet.lua", "settle.lua"),
    Script("wallet.lua", "evaluate.lua", "peek.lua"),
)
