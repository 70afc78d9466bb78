"""What AI requests ask for and what their answers used: OpenAI's, Anthropic's and Gemini's, streamed or not."""

from sidecar.core.usage.ai.asked import Asked, ask
from sidecar.core.usage.ai.estimate import estimates
from sidecar.core.usage.ai.kinds import KINDS, SUMS
from sidecar.core.usage.ai.reader import Reader, Reading
from sidecar.core.usage.ai.vendors import AUTO, VENDORS

ADAPTERS = (*VENDORS, AUTO)

__all__ = ["ADAPTERS", "KINDS", "SUMS", "Asked", "Reader", "Reading", "ask", "estimates"]
