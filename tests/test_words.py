"""The check of words (tests/words.py), and that the sources pass it."""

import pytest

from tests import words


def advice_in(text, path="sidecar/module.py"):
    return [(hit.line, hit.word) for hit in words.hits_of(path, text)]


def test_the_sources_the_documents_and_the_tests_have_no_such_word():
    assert words.all_hits() == []


def test_every_document_is_checked():
    # Fails if a folder is left out of `DOCUMENTS`.
    pages = [path.relative_to(words.ROOT).as_posix() for path in words.ROOT.glob("docs/**/*.md")]
    assert pages
    assert all(
        words._is_checked(path) for path in (*pages, "README.md", "sidecar/edge/redis/lua/settle.lua", "tests/words.py")
    )


# Fails if attributes, parameters, loop variables or imports under another name are left out of `_names`.
@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("class House: ...", "House"),
        ("class EdgeHouse: ...", "EdgeHouse"),
        ("def _told(): ...", "_told"),
        ("def load(*, kept): ...", "kept"),
        ("lambda way: way", "way"),
        ("for found in (): ...", "found"),
        ("self._said = 1", "_said"),
        ("class Route:\n    way: str", "way"),
        ("NEWCOMERS_UPSTREAM = 1", "NEWCOMERS_UPSTREAM"),
        ("import json as said", "said"),
        ("if (found := 1): ...", "found"),
        ("def spend(): ...", "spend"),
    ],
)
def test_a_banned_name_is_a_hit(text, name):
    assert [word for _, word in advice_in(text)] == [name]


# Fails if names are searched for banned words as substrings.
@pytest.mark.parametrize(
    "text",
    [
        "NOT_FOUND = 404",
        "kept_alive = True",
        "is_found = True",
        "warehouse = foundation = tolder = ways = handle = 1",
        "spend = 5",  # a quantity; the function of this name is a hit
        "print(module.told)",  # defined in another place
    ],
)
def test_a_name_that_only_resembles_a_banned_one_is_not_a_hit(text):
    assert advice_in(text) == []


def test_the_name_of_a_module_counts():
    assert advice_in("", "sidecar/core/forms.py") == [(1, "forms")]


# Fails if the lines of a comment are looked at one by one, or if docstrings lose their line numbers.
@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ("x = 1  # the key is none", (1, "is none")),
        ("# The policy in\n# force.", (1, "in force")),
        ('"""A module.\n\nOf whom it is told more.\n"""', (3, "told")),
        ('"""Title.\n\n    It comes\n    to three.\n    """', (3, "comes to")),
        ('log.info("the policy in force: %s", 1)', (1, "in force")),
        ('raise ValueError(f"{1} is no number")', (1, "is no number")),
        ('"""What a policy is made of."""', (1, "What")),
        ('"""A policy.\n\nWho reads it is not known."""', (3, "Who")),
        ("# It stands here.", (1, "stands")),
    ],
)
def test_a_banned_phrase_is_a_hit_at_its_line(text, hit):
    assert advice_in(text) == [hit]


@pytest.mark.parametrize(
    "text",
    [
        "# There is no key, and it is no longer there; a stand-in stands for it.",
        "# What is a policy? See docs.",
        '"""It says what would be right; `none` is a value, and "none" too."""',
        "# The route was not found; the connection is kept alive.",
        'mode = "none"',
        '"""It returns None."""',
    ],
)
def test_normal_english_is_not_a_hit(text):
    assert advice_in(text) == []


def test_comments_of_lua_scripts_count_and_their_code_does_not():
    assert advice_in("local told = 1\nreturn told -- what is told\n", "sidecar/edge/a.lua") == [(2, "told")]


# Fails if code, generated tables or targets of links count, or if a paragraph is looked at line by line.
@pytest.mark.parametrize(
    ("text", "hits"),
    [
        ("# What is a policy\n\nThe policy in\nforce.\n", [(3, "in force")]),
        ("```\nit is told\n```\n\ntold\n", [(5, "told")]),
        ("a `told` b [told](told.md)\n", [(1, "told")]),
        ("<!-- fields -->\n| told |\n<!-- end of fields -->\n<!-- told -->\ntold", [(5, "told")]),
        ("text\n\n- What is left.\n", [(3, "What")]),
        ("**What is left.** Nothing.\n", [(1, "What")]),
        ("Kafka is the source of truth; the truth is elsewhere.\n", [(1, "truth")]),
        ("| a | the wallet burns grants |\n", [(1, "burns")]),
    ],
)
def test_a_document_is_checked_in_its_prose(text, hits):
    assert advice_in(text, "docs/page.md") == hits


def test_of_tests_the_names_and_docstrings_are_checked_and_old_ones_are_not(monkeypatch, tmp_path):
    # Fails if other names or strings of tests count, which play clients and hold what they send.
    monkeypatch.setattr(words, "OLD_TESTS", tmp_path / "old.txt")
    text = (
        '"""The old docstring is told.\n\nMore."""\ntold = "it is told"\n\ndef test_it_is_told(): ...\n\n'
        'def test_old_is_told():\n    """It is told."""\n'
    )
    (tmp_path / "old.txt").write_text("test_old_is_told\nThe old docstring is told.\n")
    assert advice_in(text, "tests/test_a.py") == [(6, "told"), (9, "told")]
