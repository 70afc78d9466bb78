"""The forms of words in documents, each with the words that say what would be right."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import StringConstraints

NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
HEADER_NAME: Final = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$"
HEADER_VALUE: Final = r"^[!-~]([ -~]*[!-~])?$"
METHOD: Final = r"^[A-Z]+(-[A-Z]+)*$"
SERVERS: Final = r"^[^\s,]+:\d+(,\s*[^\s,]+:\d+)*$"

RIGHT: Final = {
    NAME: "1 to 63 letters, digits, dots, hyphens and underscores, the first a letter or a digit",
    HEADER_NAME: "the name of a header field, as in X-Api-Key",
    HEADER_VALUE: "printable ASCII without spaces at its ends",
    METHOD: "a method in capitals, as in GET",
    SERVERS: "host:port, several with commas",
}

Name = Annotated[str, StringConstraints(pattern=NAME)]
HeaderName = Annotated[str, StringConstraints(pattern=HEADER_NAME)]
HeaderValue = Annotated[str, StringConstraints(pattern=HEADER_VALUE)]
Method = Annotated[str, StringConstraints(pattern=METHOD)]
Servers = Annotated[str, StringConstraints(pattern=SERVERS)]
