"""The patterns of texts in documents, each with a description of valid ones for error messages."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import StringConstraints

NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
HEADER_NAME: Final = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$"
HEADER_VALUE: Final = r"^[!-~]([ -~]*[!-~])?$"
METHOD: Final = r"^[A-Z]+(-[A-Z]+)*$"
CUSTOMER: Final = r"^[!-~]([ -~]{0,254}[!-~])?$"
UNIT: Final = r"^[a-z][a-z0-9_-]{0,31}$"
DECIMAL: Final = r"^[0-9]{1,15}(\.[0-9]{1,18})?$"
POINTER: Final = r"^(/([^~/]|~[01])*)*$"
GLOB: Final = r"^[!->@-Z\\^-~]{1,128}$"
LINK: Final = r"^https?://[!#-;=?-\[\]_a-z~]{1,1024}$"
HOST_NAME: Final = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$"
ROUTE_HOST: Final = r"^([*]\.)?[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$"
USAGE_PATH: Final = r"^(/[A-Za-z0-9._~-]+)*$"
SERVERS: Final = r"^[^\s,]+:\d+(,\s*[^\s,]+:\d+)*$"

RIGHT: Final = {
    NAME: "1 to 63 letters, digits, dots, hyphens and underscores, the first a letter or a digit",
    HEADER_NAME: "the name of a header field, as in X-Api-Key",
    HEADER_VALUE: "printable ASCII without spaces at its ends",
    METHOD: "a method in capitals, as in GET",
    CUSTOMER: "1 to 256 printable ASCII characters, no space at an end",
    UNIT: "a currency or another unit of balances in lower case, as in usd, credits or gpu_seconds",
    DECIMAL: 'a decimal amount in quotes, as in "0.01": digits, at most 18 of them after the point',
    POINTER: "an RFC 6901 pointer: each step begins with a slash, ~0 is a tilde and ~1 a slash, as in /meta/rows",
    GLOB: "a name, in which * is any run of characters, as in trace_* or gpt-4*; after ! it is an exception",
    LINK: "a link that begins with https:// or http://, without spaces or double quotes",
    HOST_NAME: "the name of a host, as in api.example.com",
    ROUTE_HOST: "the name of a host without its port, as in api.example.com, or *.example.com for all names below it",
    USAGE_PATH: "a path of letters, digits, dots, hyphens, underscores and tildes between slashes, as in /usage",
    SERVERS: "host:port, several with commas",
}

Name = Annotated[str, StringConstraints(pattern=NAME)]
HeaderName = Annotated[str, StringConstraints(pattern=HEADER_NAME)]
HeaderValue = Annotated[str, StringConstraints(pattern=HEADER_VALUE)]
Method = Annotated[str, StringConstraints(pattern=METHOD)]
Servers = Annotated[str, StringConstraints(pattern=SERVERS)]
