"""Mirrors sidecar/config/compile.py."""

import sys
from collections import Counter
from types import SimpleNamespace

import pytest

from sidecar.config.compile import load as load_documents
from sidecar.core.errors import PolicyError
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for

DESIGN = """\
meters:
  requests:        { count: 1, when: { status: [2xx, 3xx, 4xx] } }       # 5xx are ours, not theirs
  egress_bytes:    { value: response.bytes }
  weighted_calls:  { value: { lookup: region, table: { us: 10, eu: 12, ap: 15 } } }   # tenths of a unit
routes:
  - id: chat
    match: { methods: [POST], path: /v1/chat/completions }
    upstream: llm
plans:
  free:
    limits:
      - { id: burst,    meter: requests, rate: 5/s, burst: 10, scope: key }
      - { id: monthly,  meter: requests, quota: 10000/month, scope: customer }
      - { id: inflight, concurrency: 4, scope: key }
    features: [chat]
  pro:
    limits:
      - { id: monthly,  meter: requests, quota: 1000000/month, anchor: subscription, over: allow }   # overage is billed
      - { id: trial-v2, meter: requests, quota: 500000/month, stage: shadow }   # decides, never blocks
"""


def facts(**given):
    base = {"status": 200, "method": "POST", "bytes_in": 1, "bytes_out": 2, "duration_us": 3}
    return SimpleNamespace(**base | given)


def test_the_example_is_compiled_as_it_is_written(load):
    policy = load(DESIGN)
    route = policy.match("POST", "/v1/chat/completions")
    assert (route.id, route.upstream) == ("chat", "llm")
    assert policy.match("GET", "/v1/chat/completions") is None
    terms = policy.terms("free", route)
    assert [(limit.id, limit.kind, limit.amount, limit.scope) for limit in terms.limits] == [
        ("burst", "rate", 10, "key"),
        ("monthly", "quota", 10_000, "customer"),
        ("inflight", "concurrency", 4, "key"),
    ]
    assert terms.fixed_costs == (1, 1, 1)
    assert terms.measure(facts()) == {"requests": 1, "egress_bytes": 2, "weighted_calls": 12}
    assert [limit.stage for limit in policy.terms("pro", route).limits] == ["enforce", "shadow"]


def test_an_edit_of_a_limit_keeps_its_counter_and_so_does_a_change_of_plan(load):
    # APISIX limit-count: editing the policy restarted the quota. Fails if a key is made of the definition.
    who = Identity("k", "s", "c", "free")
    now_us = 1_790_000_000_000_000

    def keys(policy, plan):
        terms = policy.terms(plan, policy.match("POST", "/v1/chat/completions"))
        checks = checks_for(terms.limits, terms.fixed_costs, who, now_us)
        return {limit.id: key for limit, key in zip(checks.limits, checks.keys, strict=True)}

    before, after = load(DESIGN), load(DESIGN.replace("10000/month", "20000/month").replace("5/s, burst: 10", "9/s"))
    assert before.version != after.version
    assert keys(before, "free") == keys(after, "free")
    assert keys(before, "free")["monthly"] == keys(before, "pro")["monthly"]


def test_without_routes_all_goes_to_the_default_upstream(load):
    policy = load("plans: {p: {}}")
    route = policy.match("DELETE", "/any/thing")
    assert (route.id, route.upstream, route.unattributed) == ("default", "default", "deny")


def test_an_empty_policy_meters_requests(load):
    policy = load("")
    assert policy.terms("", policy.match("GET", "/")).measure(facts(status=404)) == {"requests": 1}


def test_a_policy_s_own_requests_meter_replaces_the_default(load):
    policy = load("meters: {requests: {count: 2, when: {status: [2xx]}}}")
    terms = policy.terms("", policy.match("GET", "/"))
    assert [terms.measure(facts(status=status))["requests"] for status in (200, 404)] == [2, 0]


def test_a_look_up_by_header_does_not_mind_the_case_of_its_name(load):
    policy = load("meters: {m: {value: {lookup: header.X-Tier, table: {gold: 9}, default: 1}}}")
    [meter] = [meter for meter in policy.terms("", policy.routes[0]).meters if meter.id == "m"]
    assert meter.ask(SimpleNamespace(fields={b"x-tier": b"gold"})) == 9


def test_a_number_in_a_header_does_not_mind_the_case_of_its_name(load):
    policy = load("meters: {m: {value: response.header.X-Units}}")
    answer = {b"x-units": b"7"}
    assert policy.terms("", policy.routes[0]).measure(facts(response_header=answer.get))["m"] == 7


@pytest.mark.parametrize(("values", "sent", "units"), [('"*"', b"any", 1), ("[a, b]", b"b", 1), ("a", b"b", 0)])
def test_a_header_condition_takes_a_value_a_list_or_any(load, values, sent, units):
    policy = load(f"meters: {{m: {{when: {{header: {{X-A: {values}}}}}}}}}")
    [meter] = [meter for meter in policy.terms("", policy.routes[0]).meters if meter.id == "m"]
    assert meter.ask(SimpleNamespace(fields={b"x-a": sent})) == units


def test_a_status_condition_takes_classes_and_codes(load):
    policy = load("meters: {m: {when: {status: [2xx, 404]}}}")
    terms = policy.terms("", policy.routes[0])
    assert [terms.measure(facts(status=status))["m"] for status in (200, 299, 300, 404, 405)] == [1, 1, 0, 1, 0]


def test_a_plan_is_labelled_with_its_version_or_with_what_it_says(load):
    def label(text):
        return load(text).plans["p"].label

    assert label("plans: {p: {version: 3}}") == "p@3"
    short = label("plans: {p: {limits: [{id: a, quota: 1/day}]}}")
    assert short == label("# a comment\nplans: {p: {limits: [{quota: 1/day, id: a}]}}")
    assert short != label("plans: {p: {limits: [{id: a, quota: 2/day}]}}")
    metered = "meters: {m: {value: request.bytes}}\nplans: {p: {limits: [{id: a, quota: 1/day, meter: m}]}}"
    assert label(metered) != label(metered.replace("request", "response"))


def test_the_version_is_of_the_content_and_not_of_the_layout(load):
    assert load(DESIGN).version == load(DESIGN.replace("# 5xx are ours, not theirs", "")).version
    assert load(DESIGN).version != load(DESIGN, region="us").version


def test_the_files_of_a_folder_are_merged(load):
    meters, _, rest = DESIGN.partition("routes:\n")
    assert load("routes:\n" + rest, meters).version == load("", DESIGN).version


def test_a_name_that_two_files_define_is_a_fault_that_names_both_places(load, tmp_path):
    with pytest.raises(PolicyError) as caught:
        load(
            "plans: {p: {}}\nroutes: [{id: r, match: {path: /a}}]",
            "\nplans: {p: {}}\nroutes: [{id: r, match: {path: /b}}]",
        )
    assert [str(fault).replace(f"{tmp_path}/", "") for fault in caught.value.faults] == [
        "1.yaml:3: routes[0]: 'r' is already defined at 0.yaml:2: give one of them another name",
        "1.yaml:2: plans.p: 'p' is already defined at 0.yaml:1: give one of them another name",
    ]


def test_faults_of_several_files_are_told_in_one_load(load):
    with pytest.raises(PolicyError) as caught:
        load("plan: {}", "a: [", "plans: {p: {limits: [{id: a, rate: 5}]}}")
    assert [fault.file.rpartition("/")[2] for fault in caught.value.faults] == ["0.yaml", "1.yaml", "2.yaml"]


def test_one_limit_may_be_shared_across_files_only_if_it_is_alike(load):
    with pytest.raises(PolicyError, match=r"1\.yaml:1: .* is the counter of .*/0\.yaml:1 too, but differs"):
        load("plans: {a: {limits: [{id: x, quota: 1/day}]}}", "plans: {b: {limits: [{id: x, quota: 1/month}]}}")


def test_hidden_files_other_files_and_folders_are_not_read(load, tmp_path):
    (tmp_path / ".swp.yaml").write_text("no: policy")
    (tmp_path / "README.md").write_text("no policy")
    (tmp_path / "examples.yaml").mkdir()
    assert load("plans: {p: {}}").plans.keys() == {"p"}


def test_a_folder_without_a_policy_and_a_path_without_anything_are_faults(tmp_path):
    with pytest.raises(PolicyError, match=r"has no \*\.yaml file: put a policy there"):
        load_documents(tmp_path, {"default"})
    with pytest.raises(PolicyError, match=r"nope: cannot be read: No such file"):
        load_documents(tmp_path / "nope", {"default"})


def calls_of_a_load(path, plans: int) -> Counter:
    """How often each function in Python is called while a policy of that many plans, of two limits each, is loaded."""
    limit = "{{ id: {0}{1}, meter: requests, quota: {1}/month, scope: customer }}"
    path.write_text(
        "plans:\n"
        + "".join(
            f"  p{n}: {{ limits: [{limit.format('a', n)}, {limit.format('b', n)}] }}\n" for n in range(1, plans + 1)
        )
    )
    calls = Counter()
    sys.setprofile(lambda frame, event, _: calls.update([frame.f_code.co_name] if event == "call" else []))
    try:
        load_documents(path, {"default"})
    finally:
        sys.setprofile(None)
    return calls


def test_the_work_of_a_load_grows_by_a_bounded_number_of_calls_for_each_plan(tmp_path):
    # Fails if limits are compiled again by each of their readers, or defaults are validated: that was 724 calls a plan.
    few, many = (calls_of_a_load(tmp_path / "p.yaml", plans) for plans in (20, 120))
    assert (many.total() - few.total()) / 100 < 450
    assert (many["compiled"] - few["compiled"]) / 100 <= 2 * 2  # of each limit: to check it, and to use it
