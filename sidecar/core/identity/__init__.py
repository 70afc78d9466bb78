"""The caller of a request: credentials, API keys, and the identity that a key belongs to.

A credential is never stored: only its SHA-256 (with an optional pepper) is looked up, cached or stored, and no error
text contains a credential or a hash. A request with an ambiguous credential is refused.
"""

from sidecar.core.identity.api_keys import PREFIX, RANDOM_BYTES, TEST, digest, has_valid_checksum, make_key, stored
from sidecar.core.identity.identity import Identity
from sidecar.core.identity.key_record import DEFAULTS, STATUSES, KeyRecord, read_record
from sidecar.core.identity.sources import AMBIGUOUS, MALFORMED, ReadResult, Source

__all__ = [
    "AMBIGUOUS", "DEFAULTS", "MALFORMED", "PREFIX", "RANDOM_BYTES", "STATUSES", "TEST", "Identity", "KeyRecord",
    "ReadResult", "Source", "digest", "has_valid_checksum", "make_key", "read_record", "stored",
]  # fmt: skip
