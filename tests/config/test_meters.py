"""Mirrors sidecar/config/meters.py."""

from pathlib import Path

import pytest

from sidecar.config.document import read
from sidecar.config.meters import rule_of
from sidecar.config.models import validate
from sidecar.config.policies import PolicyDoc
from sidecar.core.usage import Aggregate, Count, Json, JsonTest, Lookup, Measured, Scaled, Sum, Usage, When

AB = "routes:\n- {id: a, match: {path: /a}}\n- {id: b, match: {path: /b}}\n"
CHAT = "routes: [{id: chat, match: {path: /chat}}]\n"
GEMINI = "routes: [{id: r, match: {path: /**}, usage: gemini}]\n"


def rule(text, region="eu"):
    meter = validate(PolicyDoc, read(Path("p.yaml"), f"meters: {{m: {text}}}")).meters["m"]
    return rule_of("m", meter, region)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            CHAT + "meters: {m: {when: {route: [chta]}}}",
            "p.yaml:2: meters.m.when.route[0]: 'chta' is not defined; did you mean 'chat'?",
        ),
        ("meters: {m: {when: {status: [20x]}}}", "meters.m.when.status[0]: '20x' is not a status: write 2xx or 404"),
        ("meters: {m: {when: {status: [600]}}}", "'600' is not a status"),
        ("meters: {m: {value: response.byts}}", "unknown quantity 'response.byts'; did you mean 'response.bytes'?"),
        (
            "meters: {m: {value: usage.openai.input}}",
            "meters.m.value: unknown quantity 'usage.openai.input'; write usage: openai.input instead",
        ),
        ("meters: {m: {count: 1, value: duration_ms}}", "p.yaml:1: meters.m: has both count and value: keep one"),
        (
            "meters: {m: {value: {lookup: methd, table: {GET: 1}}}}",
            "p.yaml:1: meters.m.value.lookup: 'methd' cannot be looked up; did you mean 'method'?",
        ),
        (
            "meters: {m: {value: {lookup: method, table: {GET: 1}}}}",
            "p.yaml:1: meters.m.value.table: needs a default: a request can hold a value that is not in the table",
        ),
        ("meters: {m: {value: {lookup: header.X-T, table: {a: 1}}}}", "needs a default"),
        (
            CHAT + "meters: {m: {value: {lookup: route, table: {caht: 1}, default: 1}}}",
            "p.yaml:2: meters.m.value.table.caht: 'caht' is not defined; did you mean 'chat'?",
        ),
        (
            AB + "meters: {m: {value: {lookup: route, table: {a: 1}}}}",
            "p.yaml:4: meters.m.value.table: has no entry for b, and no default: add one",
        ),
        (
            "meters: {m: {value: {lookup: region, table: {eu: 1}}}}",
            "has no entry for 'local', which is this sidecar's `region`, and no default: add one",
        ),
        ("meters: {m: {usage: output}}", "p.yaml:1: meters.m.usage: is read on no route: give one `usage: openai`"),
        (
            GEMINI + "meters: {m: {usage: openai.output}}",
            "meters.m.usage: is read on no route: give one `usage: openai`",
        ),
        (GEMINI + "meters: {m: {usage: gemni.output}}", "unknown AI API 'gemni'; did you mean 'gemini'?"),
        (GEMINI + "meters: {m: {usage: auto.output}}", "unknown AI API 'auto'; known: anthropic, "),
        (
            GEMINI + "meters: {m: {usage: gemini.cached_read}}",
            "unknown kind of usage 'cached_read'; did you mean 'cache_read'?",
        ),
        (GEMINI + "meters: {m: {usage: output, count: 1}}", "meters.m: has both count and usage: keep one"),
        (
            "meters: {m: {value: {json: response, pointer: rows}}}",
            "meters.m.value.pointer: 'rows' is not right: write an RFC 6901 pointer",
        ),
        ("meters: {m: {value: {json: response, pointer: /a~2}}}", "'/a~2' is not right"),
        ("meters: {m: {value: {json: responce, pointer: /a}}}", "should be 'request' or 'response', not 'responce'"),
        (
            "meters: {m: {value: {json: response, pointer: /a, lenght: true}}}",
            "meters.m.value.lenght: is not known here; did you mean 'length'?",
        ),
        ("meters: {m: {value: {json: response, pointer: /a, default: 1.5}}}", "1.5 is not a whole number"),
        (
            "meters: {m: {json: response, pointer: /a}}",
            "meters.m.json: does not belong here: write value: { json: response,",
        ),
        ("meters: {m: {when: {json: {request: {tier: a}}}}}", "'tier' is not right: write an RFC 6901 pointer"),
        ("meters: {m: {when: {json: {body: {/tier: a}}}}}", "should be 'request' or 'response'"),
        (
            "meters: {m: {when: {json: {request: {/tier: 1.5}}}}}",
            '1.5 has been rounded by YAML already: write "1.5" in quotes',
        ),
        ("meters: {m: {when: {json: {}}}}", "meters.m.when.json: is empty: give at least one"),
        (
            "meters: {m: {when: {json_rpc_method: ['[a]']}}}",
            "'[a]' is not right: write a name, in which * is any",
        ),
        ("meters: {m: {value: {lookup: model, table: {'!a': 1}, default: 0}}}", "table: makes no exceptions: what no"),
        ("meters: {m: {value: {lookup: model, table: {a: 1}}}}", "meters.m.value.table: needs a default"),
    ],
)
def test_each_fault_is_told_at_its_line_with_what_would_be_right(faults, text, said):
    assert faults(text)[0].startswith(said) or said in faults(text)[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{}", Count(1)),
        ("{count: 3}", Count(3)),
        ("{value: response.bytes}", Measured("response.bytes")),
        ("{value: request.header.X-Units}", Measured("request.header.x-units")),
        ("{value: {lookup: region, table: {eu: 12, us: 10}}}", Count(12)),
        ("{value: {lookup: header.X-Tier, table: {a: 2}, default: 1}}", Lookup("header.x-tier", {"a": 2}, 1)),
        (
            "{value: {lookup: json_rpc_method, table: {eth_getLogs: 75, 'trace_*': 100}, default: 10}}",
            Lookup("json_rpc_method", {"eth_getLogs": 75, "trace_*": 100}, 10),
        ),
        ("{value: {lookup: model, table: {gpt-4.1: 8}, default: 1}}", Lookup("model", {"gpt-4.1": 8}, 1)),
        ("{value: {json: response, pointer: /meta/rows}}", Json("response", "/meta/rows")),
        (
            "{value: {json: response, pointer: /data, length: true, default: 7}}",
            Json("response", "/data", length=True, default=7),
        ),
        ("{value: {json: request, pointer: ''}}", Json("request", "")),
        ("{usage: openai.input_uncached}", Usage("input_uncached", "openai")),
        ("{usage: output}", Usage("output")),
    ],
)
def test_each_form_becomes_its_quantity(text, value):
    assert rule(text).value == value


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("{json_rpc_method: [eth_getLogs, 'trace_*']}", When(json_rpc=("eth_getLogs", "trace_*"))),
        ("{model: 'gpt-4*'}", When(models=("gpt-4*",))),
        (
            "{json: {request: {/tier: [gold, 2, true]}, response: {/a~1b: '*'}}}",
            When(
                json=(
                    JsonTest("request", "/tier", frozenset({"gold", "2", "true"})),
                    JsonTest("response", "/a~1b"),
                )
            ),
        ),
        ("{header: {X-A: '*'}, method: GET}", When(headers=((b"x-a", frozenset()),), methods=frozenset({"GET"}))),
    ],
)
def test_each_condition_is_kept_as_it_is_written(text, when):
    assert rule(f"{{when: {text}}}").when == when


@pytest.mark.parametrize("usage", ["openai", "auto"])
def test_a_kind_of_usage_is_right_where_a_route_reads_it(load, usage):
    load(f"routes: [{{id: r, match: {{path: /**}}, usage: {usage}}}]\nmeters: {{m: {{usage: openai.cache_read}}}}")


def test_a_meter_that_is_named_twice_is_refused_with_both_lines(faults):
    assert faults("meters:\n  m: {count: 1}\n  m: {count: 2}") == [
        "p.yaml:3: meters.m: is given twice (first on line 2): keep one"
    ]


def test_a_meter_that_two_files_name_is_refused_with_both_places(load, tmp_path):
    with pytest.raises(Exception, match=r"1\.yaml:2: meters\.m: 'm' is already defined at .*0\.yaml:1"):
        load("meters: {m: {}}", "meters:\n  m: {}")


# --- Factors, sums and aggregates ------------------------------------------------------------------------------------

REGIONS = "lookup: region, table: {eu: 2, us: 1}"


def test_factors_sums_and_aggregates_become_the_core_s():
    assert rule(f"{{value: response.bytes, times: {{{REGIONS}}}}}").value == Scaled(
        Measured("response.bytes"), Lookup("route", {}, 2)
    )
    tier = Lookup("header.x-tier", {"gold": 3}, 1)
    assert rule("{usage: output, times: {lookup: header.X-Tier, table: {gold: 3}, default: 1}}").value == Scaled(
        Usage("output"), tier
    )
    assert rule("{sum: {a: 1, b: 5}}").value == Sum((("a", 1), ("b", 5)))
    assert rule("{count: 1}").aggregate == Aggregate()
    assert rule("{count: 1, aggregate: max, of: 1min}").aggregate == Aggregate("max", "", 60_000_000)
    assert rule("{value: duration_s, aggregate: max}").aggregate == Aggregate("max")
    assert rule("{count: 1, aggregate: unique, of: subject}").aggregate == Aggregate("unique", "subject")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("meters: {m: {value: response.bytes, times: {lookup: region, table: {mars: 2}}}}",
         "meters.m.times.table: has no entry for 'local'"),
        ("meters: {m: {count: 1, times: {lookup: json_rpc_method, table: {a: 1}, default: 1}}}",
         "meters.m.times.lookup: a batch has many methods: give them their units with value:"),
        ("meters: {m: {sum: {n: 1}}}", "meters.m.sum.n: 'n' is not defined"),
        ("meters: {m: {sum: {m: 1}}}", "meters.m.sum.m: 'm' is a sum itself"),
        ("meters: {m: {sum: {n: 1}}, n: {value: duration_s, aggregate: latest}}",
         "meters.m.sum.n: the units of 'n' (latest) do not add up: leave it out"),
        ("meters: {m: {sum: {requests: 1}, when: {method: GET}}}", "meters.m.when: is of each of its meters"),
        ("meters: {m: {sum: {requests: 1}, times: {lookup: method, table: {GET: 1}, default: 1}}}",
         "meters.m.times: is of each of its meters"),
        ("meters: {m: {sum: {requests: 0}}}", "meters.m.sum.requests: should be greater than or equal to 1"),
        ("meters: {m: {sum: {requests: 1}, count: 2}}", "meters.m: has both count and sum: keep one"),
        ("meters: {m: {count: 1, aggregate: mean}}", "meters.m.aggregate: "),
        ("meters: {m: {count: 1, aggregate: unique}}", "meters.m.aggregate: unique values of what?"),
        ("meters: {m: {count: 1, aggregate: unique, of: subjct}}", "meters.m.of: unique values of what? did you mean"),
        ("meters: {m: {count: 1, of: 1min}}", "meters.m.of: means nothing with sum, only with max and unique"),
        ("meters: {m: {count: 1, aggregate: max, of: minute}}", "meters.m.of: 'minute' is not a quantity with a unit"),
        ("meters: {m: {count: 1, aggregate: max, of: 7min}}", "meters.m.of: windows of 7min do not fill a day"),
        ("meters: {m: {count: 1, aggregate: max, of: 2d}}", "meters.m.of: windows of 2d do not fill a day"),
        ("meters: {m: {value: duration_s, aggregate: max}}\nplans: {p: {limits: [{id: a, meter: m, quota: 5/month}]}}",
         "plans.p.limits[0].meter: 'm' is a max, which only the records of its whole period say"),
        (("meters: {m: {value: duration_s, aggregate: latest}}\nplans: {p: {currency: usd, prices: {m: {per_unit: 1}}, "
         "limits: [{id: a, balance: usd}]}}"),
         "plans.p.prices.m: 'm' is a latest, so no balance can pay for it while it is used"),
    ],
)  # fmt: skip
def test_an_aggregate_without_a_meaning_is_refused_by_name(faults, text, said):
    # Fails if a limit on a maximum is accepted: its counter would add the values up.
    assert any(said in fault for fault in faults(text)), faults(text)


def test_a_price_of_an_aggregate_is_right_where_no_balance_pays_for_it(load):
    text = (
        "meters: {m: {value: duration_s, aggregate: latest}}\nplans: {p: {currency: usd, prices: {m: {per_unit: 1}}}}"
    )
    assert load(text).plans["p"].limits == ()
