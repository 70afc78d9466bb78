"""LiteLLM's hook for authentication, run in its own interpreter: two keys with their limits, as a register would have
them.
"""

from __future__ import annotations

from fastapi import HTTPException, Request
from litellm.proxy._types import UserAPIKeyAuth

LIMITS = {
    "bench-4f9c2a7d1e8b6350": {"rpm_limit": 1_000_000_000, "tpm_limit": 1_000_000_000_000},
    "bench-spent-91d0c3b7a5": {"rpm_limit": 3, "tpm_limit": 1_000_000_000_000},
}


async def identify(_request: Request, api_key: str) -> UserAPIKeyAuth:
    limits = LIMITS.get(api_key)
    if limits is None:
        raise HTTPException(401, "this key is not registered")
    return UserAPIKeyAuth(api_key=api_key, user_id="app-bench", team_id=None, **limits)
