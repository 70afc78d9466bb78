import json


def test_the_demo_ends_by_itself_and_its_books_balance(sidecar):
    # Fails if the last records are not shipped in the drain, or a denial makes no record.
    status, out, err = sidecar("demo", "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert told["served"] == told["recorded"] > 20
    assert told["throttled"] == told["denials_recorded"] > 20
    assert told["served"] + told["throttled"] == told["requests"]
    assert told["last"][-1]["data"]["customer"] == "cust-demo"


def test_the_demo_in_a_pipe_is_plain_lines_with_a_balance_at_the_end(sidecar):
    status, out, _ = sidecar("demo")
    assert status == 0
    assert "\x1b" not in out
    last = out.splitlines()[-1]
    assert last.startswith("served ")
    assert last.count(" = ") == 2


def test_settings_of_the_shell_do_not_reach_the_demo(sidecar):
    status, _, _ = sidecar("demo", "--json", SIDECAR_WORKERS="none")
    assert status == 0
