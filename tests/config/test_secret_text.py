"""Mirrors sidecar/config/secret_text.py."""

from pathlib import Path

import pytest

from sidecar.config.secret_text import SecretText, parse_secret_text

VALUES = {"$KEY": "hunter2", "/run/key": "from-file"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("Bearer ${KEY}", "Bearer hunter2"),
        ("${KEY}:${file:/run/key}", "hunter2:from-file"),
        ("${file:/run/key} and ${KEY}.", "from-file and hunter2."),
        ("a $ sign, $KEY and }", "a $ sign, $KEY and }"),
        ("$${KEY}", "${KEY}"),
        (2024, "2024"),
    ],
)
def test_references_are_filled_in_and_all_else_is_the_text(text, value):
    # Fails if `$KEY` without braces is a reference, or if `$${` is one.
    assert parse_secret_text(text).fill(VALUES) == value


def test_a_file_is_relative_to_the_document():
    text = parse_secret_text("${file:keys/openai}${file:/run/key}${KEY}", Path("/etc/sidecar"))
    assert text.sources == ("/etc/sidecar/keys/openai", "/run/key", "$KEY")
    assert text.files == (Path("/etc/sidecar/keys/openai"), Path("/run/key"))


@pytest.mark.parametrize(
    "text", ["${sk-live-1}", "${}", "${file:}", "${env:KEY}", "Bearer ${sk_live", "$${a} ${b", None, True, 1.5]
)
def test_what_is_no_reference_is_refused_and_never_repeated(text):
    # Fails if the error shows what was written: people put the secret itself between the braces.
    with pytest.raises(ValueError, match=r"text|write \$\{NAME\}") as caught:
        parse_secret_text(text)
    assert "live" not in str(caught.value)


def test_no_form_of_it_shows_what_was_written_out():
    text = SecretText(("Bearer sk-live-1",))
    assert "live" not in f"{text} {text!r} {[text]}"
