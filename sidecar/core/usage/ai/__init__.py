"""Read AI requests and the usage of their answers: OpenAI's, Anthropic's and Gemini's, streamed or not."""

from sidecar.core.usage.ai.estimate import estimates
from sidecar.core.usage.ai.kinds import KINDS, SUMS
from sidecar.core.usage.ai.reader import Reader, Reading
from sidecar.core.usage.ai.request import AiRequest, parse_request
from sidecar.core.usage.ai.vendors import AUTO, VENDORS

ADAPTERS = (*VENDORS, AUTO)

__all__ = ["ADAPTERS", "KINDS", "SUMS", "AiRequest", "Reader", "Reading", "estimates", "parse_request"]
