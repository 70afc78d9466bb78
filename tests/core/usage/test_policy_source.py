import pickle

from sidecar.core.policy import Limit, Plan, Route
from sidecar.core.usage import Count, Exclusion, MeterRule, PolicySource, When

FREE = Plan("free", "free@1", (Limit("monthly", "quota", 100, meter="calls", calendar="month"),))
OWN = Plan("free", "free@1+own", (Limit("monthly", "quota", 500, meter="calls", calendar="month"),))
SOURCE = PolicySource(
    "v1",
    (Route("chat", "/chat", frozenset({"POST"})), Route("all")),
    (FREE,),
    {"calls": MeterRule("calls", Count(3), When(routes=frozenset({"chat"})))},
    (Exclusion("probes", When(methods=frozenset({"HEAD"}))),),
    {"acme": OWN},
)


def test_it_is_worked_out_into_the_policy():
    policy = SOURCE.policy()
    chat, everything = policy.match("POST", "/chat"), policy.match("GET", "/chat")
    assert (policy.version, chat.id, everything.id) == ("v1", "chat", "all")
    assert policy.terms("free", chat).fixed_costs == (3,)
    assert policy.terms("free", everything).limits == ()
    assert policy.terms("free", chat, "acme").limits == OWN.limits
    assert [exclusion.id for exclusion in policy.terms("free", chat).exclusions] == ["probes"]


def test_in_another_process_it_says_the_same():
    handed = pickle.loads(pickle.dumps(SOURCE))  # noqa: S301 - our own
    policies = [source.policy() for source in (SOURCE, handed)]
    ours, theirs = ([policy.terms("free", route, "acme") for route in policy.routes] for policy in policies)
    assert [terms.limits for terms in theirs] == [terms.limits for terms in ours]
    assert [terms.fixed_costs for terms in theirs] == [terms.fixed_costs for terms in ours]
