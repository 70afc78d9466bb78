"""The part of a policy that tests of counters and wallets have in common: health checks are excluded."""

HEALTH_EXCLUDED = """\
exclude:
  - { id: probes, when: { route: [health] } }
routes:
  - { id: health, match: { path: /health } }
  - { id: api, match: { path: "/**" } }
"""
