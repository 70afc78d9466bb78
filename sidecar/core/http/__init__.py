"""What HTTP lets a proxy believe. Whatever could be read two ways is refused; nothing is ever passed on as raw bytes.

A smuggled request is an unmetered request. `path` gives a target its one normal form, `request` and `response` judge
heads, `body` finds where bodies end, `forward` rebuilds heads for the next hop, `problem` renders our own answers.
"""

from sidecar.core.http.body import BadFraming, Body, ChunkedBody, LengthBody, UntilCloseBody, chunk, last_chunk
from sidecar.core.http.problem import Problem, problem_answer
from sidecar.core.http.request import CHUNKED, HeadLimits, Request, read_line, read_request
from sidecar.core.http.response import UNTIL_CLOSE, BadAnswer, ResponseHead, read_response, read_status_line

__all__ = [
    "CHUNKED", "UNTIL_CLOSE", "BadAnswer", "BadFraming", "Body", "ChunkedBody", "HeadLimits", "LengthBody", "Problem",
    "Request", "ResponseHead", "UntilCloseBody", "chunk", "last_chunk", "problem_answer", "read_line", "read_request",
    "read_response", "read_status_line",
]  # fmt: skip
