"""Mirrors sidecar/edge/kafka/token_file.py."""

import pytest

from sidecar.edge.kafka.token_file import TokenFile


# Fails if the token is kept: tokens expire, and the next login would be refused.
async def test_a_token_is_read_again_for_each_login(tmp_path):
    path = tmp_path / "token"
    provider = TokenFile(path)
    for token in ("one", "two"):
        path.write_text(f"{token}\n")
        assert await provider.token() == token


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file"), (b"\n", "is empty"), (b"\xff", "not ASCII")])
async def test_a_file_without_a_token_is_an_error_that_names_it(tmp_path, content, reason):
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    with pytest.raises(ConnectionError, match=f"kafka.security.token_file: .*token.*{reason}"):
        await TokenFile(tmp_path / "token").token()
