import json

import pytest

from sidecar.core.window import calendar_window
from sidecar.edge.clock import SystemClock

KEYS = """\
keys:
  - {{ id: k1, hash: "sha256:{one}", customer: acme, subject: app, plan: free }}
  - {{ id: k2, hash: "sha256:{two}", customer: acme, subject: batch, plan: pro }}
  - {{ id: k3, hash: "sha256:{three}", customer: globex, subject: globex, plan: free, status: revoked }}
""".format(one="1" * 64, two="2" * 64, three="3" * 64)
POLICY = """\
meters:
  calls: { count: 1 }
plans:
  free:
    limits:
      - { id: burst, rate: 5/s, burst: 10 }
      - { id: monthly, quota: 10000/month, scope: customer }
  pro:
    currency: usd
    prices:
      calls: { per_unit: "0.02" }
    limits:
      - { id: inflight, concurrency: 2, scope: customer }
      - { id: credit, balance: usd, over: deny }
"""


@pytest.fixture(autouse=True)
def registered(folder):
    (folder / "keys.yaml").write_text(KEYS)
    (folder / "p.yaml").write_text(POLICY)


def month():
    return calendar_window("month", "UTC", 0, SystemClock().now_us()).id


@pytest.mark.redis
def test_what_redis_counts_is_shown_and_the_limit_that_binds(in_process, redis_clean):
    # Fails if a figure is of another counter, or a rate that has all its units back binds.
    redis_clean.cli.set(f"sc:{{acme}}:q=monthly:cacme:{month()}", 9_990)
    status, out, err = in_process("customers", "limits", "acme", "--key", "k1", SIDECAR_REDIS__URL=redis_clean.url)
    burst, monthly = (line.split("\t") for line in out.splitlines())
    assert (status, err) == (0, "")
    assert (burst[:3], burst[6]) == (["burst", "0 of 10 requests", "10"], "")
    assert monthly[:3] == ["monthly", "9990 of 10000 requests", "10"]
    assert (monthly[3][7:], monthly[4:]) == ("-01 00:00Z", ["customer acme", "", "binds"])


def test_the_name_of_a_customer_does_not_command_a_terminal(in_process):
    # Fails if an argument is printed as it is, in an error of ours or of wrong usage.
    name = "a\x1b]0;b"
    for arguments in ((name,), ("acme", "--subject", name), ("acme", name), (f"--{name}",)):
        status, _, err = in_process("customers", "limits", *arguments)
        assert (status > 0, "\x1b" in err, "a\\x1b]0;b" in err) == (True, False, True)


def test_all_plans_of_a_customer_s_keys_are_shown_without_redis(in_process):
    # Fails if only the first key's plan is asked, or an amount has lost its digits.
    grant = ("wallet", "grant", "--customer", "acme", "--unit", "usd", "--amount", "1.50", "--expires", "2099-01-01")
    assert in_process(*grant)[0] == 0
    status, out, _ = in_process("customers", "limits", "acme", "--json")
    shown = json.loads(out)
    assert status == 0
    assert [(each["id"], each["plan"]) for each in shown["limits"]] == [
        ("burst", "free"), ("monthly", "free"), ("inflight", "pro")
    ]  # fmt: skip
    monthly = shown["limits"][1]
    assert (monthly["used"], monthly["remaining"], monthly["period"]) == (0, 10_000, month())
    assert shown["balances"] == [
        {
            "unit": "usd",
            "available": "1.5",
            "held": "0",
            "expiring": "1.5",
            "expires": "2099-01-01T00:00:00.000000Z",
            "binding": False,
        }
    ]
    assert [(each["meter"], each["used"], each["period"]) for each in shown["priced"]] == [("calls", 0, month())]
    status, out, _ = in_process("customers", "limits", "acme", "--subject", "batch")
    assert (status, [line.split("\t")[0] for line in out.splitlines()]) == (0, ["inflight", "balance", "priced"])


def test_who_has_no_active_key_is_named_with_the_remedy(in_process):
    for words, why in [
        (("nobody",), "no key is registered for the customer nobody; `sidecar keys list`"),
        (("globex",), "the customer globex has no active key; `sidecar keys search --customer globex`"),
        (("acme", "--key", "k9"), "the customer acme has no active key with --key k9"),
    ]:
        status, out, err = in_process("customers", "limits", *words)
        assert (status, out) == (1, "")
        assert why in err
