"""HTTP/1 messages. An ambiguous message is refused, and no head is forwarded as raw bytes.

A message that two parsers read differently can contain a second, hidden request, and that would not be metered.
`path` normalises targets, `request` and `response` validate heads, `body` finds the end of bodies, `forward` has the
fields of heads for the next hop, `problem` the answers of the sidecar itself.
"""

from sidecar.core.http.body import BadFraming, Body, ChunkedBody, LengthBody, UntilCloseBody
from sidecar.core.http.problem import Problem
from sidecar.core.http.request import CHUNKED, HeadLimits, Request, read_line, read_request
from sidecar.core.http.response import UNTIL_CLOSE, BadAnswer, ResponseHead, read_response, read_status_line

__all__ = [
    "CHUNKED", "UNTIL_CLOSE", "BadAnswer", "BadFraming", "Body", "ChunkedBody", "HeadLimits", "LengthBody", "Problem",
    "Request", "ResponseHead", "UntilCloseBody", "read_line", "read_request",
    "read_response", "read_status_line",
]  # fmt: skip
